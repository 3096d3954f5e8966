"""Sound files that libsndfile reads (wav, flac, ogg vorbis, opus, mp3, aiff, ...) to mono samples.

libsndfile takes what is there of a wav or ogg file that was cut short, without a word. The two checks at the end of this
file find those; for the other formats the header says how many samples to expect.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from cmcr.data.stretch import Stretch, cut_short
from cmcr.errors import SampleError

Mono = NDArray[np.float32]

_BLOCK_FRAMES = 1 << 16
_UNKNOWN_FRAMES = 1 << 62  # libsndfile's mark of a flac stream without a length
_STREAMED_BYTES = 0x7FFF_F000  # from here on a wav header holds what programs write when they do not know the size
_LONGEST_OGG_PAGE = 27 + 255 + 255 * 255


def read_sound_file(file: Path | io.BytesIO, name: str, stretch: Stretch) -> tuple[Mono, int]:
    """Decode a stretch of a sound, block by block, mixed down by the mean of its channels.

    Only the stretch is decoded and held in memory: these formats are sought in to the sample.

    Args:
        file: a path or the bytes.
        name: how messages call it.
        stretch: what to read.

    Returns:
        `(n,)` float32 samples and their rate in hertz.

    Raises:
        SampleError: not decodable, or shorter than its header promises.
    """
    _refuse_cut_wav_or_ogg(file, name)
    try:
        with soundfile.SoundFile(file) as opened:
            rate = int(opened.samplerate)
            total = opened.frames
            if total >= _UNKNOWN_FRAMES:  # libsndfile then fails at the end of the stream
                raise SampleError(f"{name}: its header does not say its length. Write it again with a sound tool.")
            start, length = stretch.span(total, rate, name)
            opened.seek(start)
            samples = _read_mono(opened, length)
    except soundfile.LibsndfileError as error:
        reason = error.error_string or f"libsndfile error {error.code}"
        raise SampleError(f"{name}: the sound cannot be decoded ({reason}).") from error
    if len(samples) < length:
        raise cut_short(name, promised=total / rate, got=(start + len(samples)) / rate)
    return samples, rate


def _read_mono(opened: soundfile.SoundFile, length: int) -> Mono:
    """Read up to `length` samples; in blocks, so that a header that lies about the length allocates nothing."""
    blocks = [np.zeros(0, dtype=np.float32)]
    left = length
    while left > 0:
        block = opened.read(min(left, _BLOCK_FRAMES), dtype="float32", always_2d=True)
        if len(block) == 0:
            break
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused by the caller
            blocks.append(block.mean(axis=1))
        left -= len(block)
    return np.concatenate(blocks)


def _refuse_cut_wav_or_ogg(file: Path | io.BytesIO, name: str) -> None:
    with file.open("rb") if isinstance(file, Path) else io.BytesIO(file.getbuffer()) as opened:
        size = opened.seek(0, io.SEEK_END)
        opened.seek(0)
        head = opened.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            _refuse_cut_wav(opened, size, name)
        elif head[:4] == b"OggS":
            _refuse_cut_ogg(opened, size, name)


def _refuse_cut_wav(opened: BinaryIO, size: int, name: str) -> None:
    """Compare the size of the data chunk with what follows. Sizes that mean "written to a pipe" promise nothing."""
    while len(header := opened.read(8)) == 8:
        chunk, length = struct.unpack("<4sI", header)
        if chunk == b"data":
            found = size - opened.tell()
            if found < length < _STREAMED_BYTES:
                raise SampleError(
                    f"{name}: cut short: the header promises {length} bytes of samples, {found} are there. Fetch it again."
                )
            return
        opened.seek(length + length % 2, io.SEEK_CUR)


def _refuse_cut_ogg(opened: BinaryIO, size: int, name: str) -> None:
    """Look for the last page: it must be whole and carry the mark of the end of a stream (RFC 3533)."""
    opened.seek(max(0, size - 2 * _LONGEST_OGG_PAGE))
    tail = opened.read()
    page = tail[tail.rfind(b"OggS\0") :]
    whole = len(page) >= 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    if not whole or not page[5] & 0x04:
        raise SampleError(f"{name}: cut short: its last Ogg page is not the end of a stream. Fetch it again.")

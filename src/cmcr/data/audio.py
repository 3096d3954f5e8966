"""Sounds: files and arrays to mono float32 samples at the sample rate of an encoder."""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from cmcr.data.paths import FilePath, file_of
from cmcr.data.videos import SOUND_SLACK_SECONDS, Mono, SoundTrack, media_format, opened_track
from cmcr.errors import ConfigError, SampleError

_BLOCK_FRAMES = 1 << 16
_CHUNK_HEADERS = {b"RIFF": "<4sI", b"FORM": ">4sI"}  # wav; aiff
_STREAMED_BYTES = 0x7FFF_F000  # programs that do not know the size write at least this
_LONGEST_OGG_PAGE = 27 + 255 + 255 * 255


@dataclass(frozen=True)
class SoundClip:
    """A part of a longer sound. `read_audio` takes it wherever it takes a path.

    Args:
        path: the file.
        start_seconds: where it begins, from 0.
        length_seconds: how long it is, above 0; shorter where the sound ends earlier.

    Raises:
        ConfigError: a number out of range.
    """

    path: FilePath
    start_seconds: float
    length_seconds: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start_seconds) and self.start_seconds >= 0):
            raise ConfigError(f"start_seconds must be at least 0, got {self.start_seconds!r}.")
        if not (math.isfinite(self.length_seconds) and self.length_seconds > 0):
            raise ConfigError(f"length_seconds must be above 0, got {self.length_seconds!r}.")

    def __str__(self) -> str:
        """Name it in messages."""
        return f"{self.path} ({self.length_seconds:g} s from {self.start_seconds:g} s on)"


Sound = FilePath | bytes | Mapping[str, Any] | SoundClip


def read_audio(source: Sound, sample_rate_hz: int) -> NDArray[np.float32]:
    """Decode one sound, mix it down to mono by the mean of its channels and resample it.

    A file shorter than its header says is refused: half a sound is not the sound. Silence is a sound. Samples beyond [-1, 1]
    in floating-point files stay as they are.

    Args:
        source: a path or the bytes of a file (wav, aiff, flac, ogg, opus, mp3; with the extra `media` also m4a, mp4, mov,
            webm), `{"array": samples, "sampling_rate": rate}` with samples `(n,)` or `(channels, n)`, floating point in
            [-1, 1], or a `SoundClip` of a file, of which only that part is held in memory.
        sample_rate_hz: the rate to resample to.

    Returns:
        `(n,)` float32 samples, at least one.

    Raises:
        SampleError: no such file, not a sound, cut short, empty, NaN, a mapping of another kind, or a clip that begins
            after the end.
        MissingDependencyError: a file that needs the extra `media`.
    """
    clip = source if isinstance(source, SoundClip) else None
    source = source.path if isinstance(source, SoundClip) else source
    name = str(source) if isinstance(source, str | os.PathLike) else "the sound"
    samples, rate = _from_mapping(source) if isinstance(source, Mapping) else _from_file(source, clip, name)
    if samples.size == 0:
        raise SampleError(f"{name}: holds no samples.")
    if not np.isfinite(samples).all():
        raise SampleError(f"{name}: holds NaN or infinity.")
    if rate == sample_rate_hz:
        return samples
    resampled = np.asarray(soxr.resample(samples, rate, sample_rate_hz), dtype=np.float32)
    if resampled.size == 0:
        raise SampleError(f"{name}: {samples.size} samples at {rate} Hz are less than one at {sample_rate_hz} Hz.")
    return resampled


def sound_seconds(source: FilePath | bytes, *, most: float, most_samples: int) -> float:
    """Tell how long a sound is, without decoding one that is too long: for sounds of strangers.

    What a header says is believed where decoding stops at it, as in wav, flac, ogg and mp3. The containers that PyAV reads
    may say nothing, or less than they hold: they are decoded block by block, as far as the limits.

    Args:
        source: as in `read_audio`.
        most: seconds that it may last.
        most_samples: of one channel that it may have.

    Raises:
        SampleError: longer than that, no such file, or not a sound.
        MissingDependencyError: a file that needs the extra `media`.
    """
    name = str(source) if isinstance(source, str | os.PathLike) else "the sound"
    with _opened(source, name) as (sound, in_container):
        limit = min(most_samples, int(most * sound.rate))
        total = sound.total or 0
        if in_container and total <= limit:
            total = sum(len(block) for block in sound.read(0, limit + 1))
    if total > limit:
        raise SampleError(f"{name}: lasts {total / sound.rate:.1f} s or more, the limit is {limit / sound.rate:.1f} s.")
    return total / sound.rate


def window_of(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Take the middle `length` samples of a sound; a shorter one is padded with silence at its end. Nothing is random."""
    if len(samples) >= length:
        start = (len(samples) - length) // 2
        return samples[start : start + length]
    return np.pad(samples, (0, length - len(samples)))


def _from_file(source: FilePath | bytes, clip: SoundClip | None, name: str) -> tuple[Mono, int]:
    if not isinstance(source, str | os.PathLike | bytes):
        raise SampleError(
            f"a sound must be a path or {{'array', 'sampling_rate'}}, got {type(source).__name__}. An array alone does not "
            "say its rate."
        )
    with _opened(source, name) as (sound, in_container):
        rate, start, stop = sound.rate, 0, sys.maxsize
        slack = SOUND_SLACK_SECONDS * rate if in_container else 0
        if clip is not None:
            start = round(clip.start_seconds * rate)
            stop = start + max(1, round(clip.length_seconds * rate))
        samples = np.concatenate([np.zeros(0, dtype=np.float32), *sound.read(start, stop)])
    if start and not samples.size:
        raise SampleError(f"{name}: ends before {start / rate:.2f} s, where the clip begins.")
    if sound.total is not None and samples.size < min(stop, sound.total) - start - slack:
        raise SampleError(
            f"{name}: cut short: the header promises {sound.total / rate:.2f} s, only {samples.size / rate:.2f} s from "
            f"{start / rate:.2f} s on could be decoded. Fetch it again."
        )
    return samples, rate


@contextlib.contextmanager
def _opened(source: FilePath | bytes, name: str) -> Iterator[tuple[SoundTrack, bool]]:
    """Open a sound; also tell whether it is in a container that PyAV reads."""
    with io.BytesIO(source) if isinstance(source, bytes) else file_of(source, "sound").open("rb") as file:
        reader = media_format(file.read(16))
        file.seek(0)
        with opened_track(file, name, reader) if reader else _opened_file(file, name) as sound:
            yield sound, reader is not None


def _from_mapping(source: Mapping[str, Any]) -> tuple[Mono, int]:
    try:
        samples, rate = np.asarray(source["array"]), source["sampling_rate"]
    except (KeyError, ValueError) as error:  # the latter for rows of different lengths
        raise SampleError(f"a sound given as a mapping needs 'array' and 'sampling_rate': {error}.") from error
    if samples.dtype.kind != "f" or samples.ndim not in (1, 2) or samples.shape[0] > samples.shape[-1]:
        raise SampleError(
            f"a sound array must be floating point in [-1, 1] of shape (n,) or (channels, n), got {samples.dtype} "
            f"{samples.shape}. Divide 16-bit integers by 32768; transpose (n, channels)."
        )
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not 1 <= rate < 1e7:
        raise SampleError(f"'sampling_rate' must be a number of hertz of at least 1, got {rate!r}.")
    return _mixed_down(samples), round(float(rate))


def _mixed_down(samples: NDArray[np.floating]) -> Mono:
    wide = samples.astype(np.float32) if samples.dtype.itemsize < 4 else samples  # float16 sums overflow
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused by the caller
        mono = wide.mean(axis=0) if wide.ndim == 2 else wide
        return mono.astype(np.float32, copy=False)


@contextlib.contextmanager
def _opened_file(file: BinaryIO, name: str) -> Iterator[SoundTrack]:
    """Open a file that libsndfile reads (wav, flac, ogg vorbis, opus, mp3, aiff, ...)."""
    _refuse_cut(file, name)
    # By its path where it has one: through Python objects, soundfile prints a traceback for each bad seek in a damaged file.
    path_or_bytes = file if isinstance(file, io.BytesIO) else file.name
    try:
        with soundfile.SoundFile(path_or_bytes) as opened:

            def read(start: int, stop: int) -> Iterator[Mono]:
                """Read in blocks, so that a header that lies about the length allocates nothing."""
                opened.seek(min(start, opened.frames))
                left = min(stop, opened.frames) - start
                while left > 0:
                    block = opened.read(min(left, _BLOCK_FRAMES), dtype="float32", always_2d=True)
                    if len(block) == 0:
                        break
                    yield _mixed_down(block.T)
                    left -= len(block)

            yield SoundTrack(int(opened.samplerate), opened.frames, read)
    except soundfile.LibsndfileError as error:
        reason = error.error_string or f"libsndfile error {error.code}"
        raise SampleError(f"{name}: the sound cannot be decoded ({reason}).") from error


def _refuse_cut(file: BinaryIO, name: str) -> None:
    """Refuse wav, aiff and ogg files that were cut short: libsndfile silently decodes what is left of them."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    kind = file.read(12)[:4]
    if kind in _CHUNK_HEADERS:
        _refuse_cut_chunks(file, _CHUNK_HEADERS[kind], size, name)
    elif kind == b"OggS":
        _refuse_cut_ogg(file, size, name)
    file.seek(0)


def _refuse_cut_chunks(file: BinaryIO, header_format: str, size: int, name: str) -> None:
    """Compare the size of the chunk of samples with the bytes that follow; a file written to a pipe has no true size."""
    while len(header := file.read(8)) == 8:
        chunk, length = struct.unpack(header_format, header)
        if chunk in (b"data", b"SSND"):
            found = size - file.tell()
            if found < length < _STREAMED_BYTES:
                raise SampleError(
                    f"{name}: cut short: the header promises {length} bytes of samples, {found} are there. Fetch it again."
                )
            return
        file.seek(length + length % 2, io.SEEK_CUR)


def _refuse_cut_ogg(file: BinaryIO, size: int, name: str) -> None:
    """Check the last page: it must be whole and have the end-of-stream flag (RFC 3533)."""
    file.seek(max(0, size - 2 * _LONGEST_OGG_PAGE))
    tail = file.read()
    page = tail[tail.rfind(b"OggS\0") :]
    whole = len(page) >= 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    if not whole or not page[5] & 0x04:
        raise SampleError(f"{name}: cut short: its last Ogg page is not the end of a stream. Fetch it again.")

"""Sounds: files and arrays to mono float32 samples at the sample rate of an encoder."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
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
from cmcr.interruption import held_back

MOST_SECONDS = 1800
"""How long a sound may be, or the clip of a longer one."""
MOST_SAMPLES = MOST_SECONDS * 48_000 * 2
"""How many samples it may have before resampling, those of all channels together, mono counted twice."""

_BLOCK_SAMPLES = 1 << 18  # decoded together, those of all channels
# What libsndfile is given, by how it begins: it knows twenty formats more, which nobody means.
_KNOWN = re.compile(rb"RIFF....WAVE|FORM....AIF[FC]|\.snd|caff|fLaC|OggS|ID3|\xff[\xe0-\xff]", re.DOTALL)
_CHUNKS = {b"RIFF": (12, "<4sI"), b"FORM": (12, ">4sI"), b"caff": (8, ">4sq")}  # wav, aiff, caf: the first, its header
_STREAMED_BYTES = 0x7FFF_F000  # programs that do not know the size write at least this, or -1
_UNKNOWN_FRAMES = 1 << 60  # flac written to a pipe, in which soundfile cannot seek, as it does after reading
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
    in floating-point files stay as they are. Nothing of a sound beyond `MOST_SECONDS` or `MOST_SAMPLES` is decoded.

    Args:
        source: a path or the bytes of a file (wav, aiff, au, caf, flac, ogg, opus, mp3; with the extra `media` also m4a,
            mp4, mov, webm), `{"array": samples, "sampling_rate": rate}` with samples `(n,)` or `(channels, n)`, floating
            point in [-1, 1], or a `SoundClip` of a file, of which only that part is held in memory.
        sample_rate_hz: the rate to resample to.

    Returns:
        `(n,)` float32 samples, at least one.

    Raises:
        SampleError: no such file, not a sound, too long, cut short, empty, NaN, a mapping of another kind, or a clip that
            begins after the end.
        MissingDependencyError: a file that needs the extra `media`.
    """
    clip = source if isinstance(source, SoundClip) else None
    source = source.path if isinstance(source, SoundClip) else source
    name = str(source) if isinstance(source, str | os.PathLike) else "the sound"
    samples, rate = _from_mapping(source, name) if isinstance(source, Mapping) else _from_file(source, clip, name)
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
    _refuse_long(total, sound.rate, limit, name)
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
        rate, start, limit = sound.rate, 0, _most_samples(sound.rate, sound.channels)
        wanted = sys.maxsize
        slack = SOUND_SLACK_SECONDS * rate if in_container else 0
        if clip is not None:
            start, wanted = round(clip.start_seconds * rate), max(1, round(clip.length_seconds * rate))
        _refuse_long(min(wanted, (sound.total or 0) - start), rate, limit, name)
        stop = start + min(wanted, limit + 1)  # one too many tells a sound that is too long
        samples = np.concatenate([np.zeros(0, dtype=np.float32), *sound.read(start, stop)])
    _refuse_long(samples.size, rate, limit, name)
    if start and not samples.size:
        raise SampleError(f"{name}: ends before {start / rate:.2f} s, where the clip begins.")
    if sound.total is not None and samples.size < min(stop, sound.total) - start - slack:
        raise SampleError(
            f"{name}: cut short: the header promises {sound.total / rate:.2f} s, only {samples.size / rate:.2f} s from "
            f"{start / rate:.2f} s on could be decoded. Fetch it again."
        )
    return samples, rate


class _Content(io.BytesIO):
    """Bytes of a file, in which a seek before the start does nothing: soundfile prints a traceback of what is raised."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        with contextlib.suppress(ValueError):
            return super().seek(offset, whence)
        return self.tell()


def _most_samples(rate: float, channels: int) -> int:
    """How many samples of one channel a sound may have."""
    return int(min(MOST_SAMPLES // max(2, channels), MOST_SECONDS * rate))


def _refuse_long(samples: int, rate: float, limit: int, name: str) -> None:
    if samples > limit:
        raise SampleError(f"{name}: lasts {samples / rate:.1f} s or more, the limit is {limit / rate:.1f} s. Cut it.")


@contextlib.contextmanager
def _opened(source: FilePath | bytes, name: str) -> Iterator[tuple[SoundTrack, bool]]:
    """Open a sound; also tell whether it is in a container that PyAV reads."""
    with _Content(source) if isinstance(source, bytes) else file_of(source, "sound").open("rb") as file:
        head = file.read(16)
        file.seek(0)
        if reader := media_format(head):
            with opened_track(file, name, reader) as sound:
                yield sound, True
            return
        if not _KNOWN.match(head):
            raise SampleError(f"{name}: cannot be decoded: not a format that is read (wav, flac, ogg, mp3, ...).")
        # An interrupt inside libsndfile's calls into Python is lost.
        with held_back(), _opened_file(file, name) as sound:
            yield sound, False


def _from_mapping(source: Mapping[str, Any], name: str) -> tuple[Mono, int]:
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
    rate, channels = float(rate), samples.shape[0] if samples.ndim == 2 else 1
    _refuse_long(samples.shape[-1], rate, _most_samples(rate, channels), name)
    return _mixed_down(samples), round(rate)


def _mixed_down(samples: NDArray[np.floating]) -> Mono:
    wide = samples.astype(np.float32) if samples.dtype.itemsize < 4 else samples  # float16 sums overflow
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused by the caller
        mono = wide.mean(axis=0) if wide.ndim == 2 else wide
        return mono.astype(np.float32, copy=False)


@contextlib.contextmanager
def _opened_file(file: BinaryIO, name: str) -> Iterator[SoundTrack]:
    """Open a file that libsndfile reads."""
    _refuse_cut(file, name)
    path_or_bytes = file if isinstance(file, _Content) else file.name
    try:
        with soundfile.SoundFile(path_or_bytes) as opened:

            def read(start: int, stop: int) -> Iterator[Mono]:
                """Read in blocks, so that a header that lies about the length allocates nothing."""
                opened.seek(min(start, opened.frames))
                left = min(stop, opened.frames) - start
                while left > 0:
                    frames = max(1, _BLOCK_SAMPLES // opened.channels)
                    block = opened.read(min(left, frames), dtype="float32", always_2d=True)
                    if len(block) == 0:
                        break
                    yield _mixed_down(block.T)
                    left -= len(block)

            if opened.frames > _UNKNOWN_FRAMES:
                raise SampleError(f"{name}: cannot be decoded: a header without a length. Convert it.")
            yield SoundTrack(int(opened.samplerate), opened.channels, opened.frames, read)
    except soundfile.LibsndfileError as error:
        reason = error.error_string or f"libsndfile error {error.code}"
        raise SampleError(f"{name}: the sound cannot be decoded ({reason}).") from error


def _refuse_cut(file: BinaryIO, name: str) -> None:
    """Refuse files without compression, and ogg, that were cut short: libsndfile silently decodes what is left of them."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(16)
    kind = head[:4]
    if kind == b".snd" and len(head) == 16:
        at, length = struct.unpack(">2I", head[4:12])
        _refuse_missing(size - at, length, name)
    elif kind in _CHUNKS:
        at, header_format = _CHUNKS[kind]
        _refuse_cut_chunks(file, at, header_format, size, name)
    elif kind == b"OggS":
        _refuse_cut_ogg(file, size, name)
    file.seek(0)


def _refuse_cut_chunks(file: BinaryIO, at: int, header_format: str, size: int, name: str) -> None:
    """Compare the size of the chunk of samples with the bytes that follow; a file written to a pipe has no true size."""
    header_size = struct.calcsize(header_format)
    while at + header_size <= size:
        file.seek(at)
        chunk, length = struct.unpack(header_format, file.read(header_size))
        at += header_size
        if chunk in (b"data", b"SSND"):
            return _refuse_missing(size - at, length, name)
        at += max(0, length) + length % 2 * (header_size == 8)  # the chunks of caf are not padded
    return None


def _refuse_missing(found: int, promised: int, name: str) -> None:
    if found < promised < _STREAMED_BYTES:
        raise SampleError(
            f"{name}: cut short: the header promises {promised} bytes of samples, {found} are there. Fetch it again."
        )


def _refuse_cut_ogg(file: BinaryIO, size: int, name: str) -> None:
    """Check the last page: it must be whole and have the end-of-stream flag (RFC 3533)."""
    file.seek(max(0, size - 2 * _LONGEST_OGG_PAGE))
    tail = file.read()
    page = tail[tail.rfind(b"OggS\0") :]
    whole = len(page) >= 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    if not whole or not page[5] & 0x04:
        raise SampleError(f"{name}: cut short: its last Ogg page is not the end of a stream. Fetch it again.")

"""Sounds: files and arrays to mono float32 samples at the rate an encoder wants."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from cmcr.data.media import media_format, read_sound_track
from cmcr.data.paths import file_of
from cmcr.data.sound_clips import SoundClip
from cmcr.data.sound_files import read_sound_file
from cmcr.data.stretch import Stretch
from cmcr.errors import ConfigError, SampleError

Sound = str | Path | bytes | Mapping[str, Any] | SoundClip


def read_audio(
    source: Sound,
    sample_rate_hz: int,
    *,
    start_seconds: float | None = None,
    length_seconds: float | None = None,
) -> NDArray[np.float32]:
    """Decode one sound, mix it down to mono by the mean of its channels and resample it.

    A file that ends before the length its header promises is refused, with what was found: half a sound is not the sound.
    Silence is a sound. Samples beyond [-1, 1] in floating-point files stay as they are.

    Args:
        source: a path, a `file://` address or the bytes of a file (wav, flac, ogg, opus, mp3; m4a, mp4, mov, webm with the
            extra `media`), `{"array": samples, "sampling_rate": rate}` with samples `(n,)` or `(channels, n)`, floating
            point in [-1, 1], or a `SoundClip` of a file.
        sample_rate_hz: the rate to bring it to.
        start_seconds: where to begin; `None` with a length means the middle (the rule of `window_of`).
        length_seconds: how much to read at most; `None` means to the end. Only this part is held in memory, and for the
            formats without an extra only this part is decoded.

    Returns:
        `(n,)` float32 samples, at least one.

    Raises:
        SampleError: no such file, not a sound, cut short, empty, NaN, a mapping of another kind, or a part that is not
            there.
        ConfigError: `start_seconds` below 0 or `length_seconds` not above it, or either for a `SoundClip`.
        MissingDependencyError: a file that needs the extra `media`.
    """
    if isinstance(source, SoundClip):
        if start_seconds is not None or length_seconds is not None:
            raise ConfigError(f"{source}: a SoundClip says itself which part to read.")
        return read_audio(
            Path(source.path) if isinstance(source.path, os.PathLike) else source.path,
            sample_rate_hz,
            start_seconds=source.start_seconds,
            length_seconds=source.length_seconds,
        )
    stretch = Stretch(start_seconds, length_seconds)
    name = str(source) if isinstance(source, str | os.PathLike) else "the sound"
    samples, rate = _from_mapping(source, stretch) if isinstance(source, Mapping) else _from_file(source, name, stretch)
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


def window_of(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Take the middle `length` samples of a sound; a shorter one gets silence behind it. Nothing is random."""
    if len(samples) >= length:
        start = (len(samples) - length) // 2
        return samples[start : start + length]
    return np.pad(samples, (0, length - len(samples)))


def _from_file(source: str | Path | bytes, name: str, stretch: Stretch) -> tuple[NDArray[np.float32], int]:
    if not isinstance(source, str | os.PathLike | bytes):
        raise SampleError(
            f"a sound must be a path or {{'array', 'sampling_rate'}}, got {type(source).__name__}. An array alone does not "
            "say its rate."
        )
    file = io.BytesIO(source) if isinstance(source, bytes) else file_of(source, "sound")
    reader = media_format(_first_bytes(file))
    return read_sound_track(file, name, reader, stretch) if reader else read_sound_file(file, name, stretch)


def _first_bytes(file: Path | io.BytesIO) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()[:16]
    with file.open("rb") as opened:
        return opened.read(16)


def _from_mapping(source: Mapping[str, Any], stretch: Stretch) -> tuple[NDArray[np.float32], int]:
    try:
        given, rate = source["array"], source["sampling_rate"]
    except KeyError as error:
        raise SampleError(
            f"a sound given as a mapping needs 'array' and 'sampling_rate'; {error} is missing."
        ) from error
    try:
        samples = np.asarray(given)
    except ValueError as error:
        raise SampleError(f"a sound array must be of shape (n,) or (channels, n): {error}.") from error
    if samples.dtype.kind != "f" or samples.ndim not in (1, 2):
        raise SampleError(
            f"a sound array must be floating point in [-1, 1] of shape (n,) or (channels, n), got {samples.dtype} "
            f"{samples.shape}. Divide 16-bit integers by 32768."
        )
    if samples.ndim == 2 and samples.shape[0] > samples.shape[1]:
        raise SampleError(f"a sound array must be of shape (channels, n), got {samples.shape}: transpose it.")
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not 1 <= rate < 1e7:
        raise SampleError(f"'sampling_rate' must be a number of hertz of at least 1, got {rate!r}.")
    rate_hz = round(float(rate))
    start, length = stretch.span(samples.shape[-1], rate_hz, "the sound")
    return _mixed_down(samples[..., start : start + length]), rate_hz


def _mixed_down(samples: NDArray[np.floating]) -> NDArray[np.float32]:
    wide = samples.astype(np.float32) if samples.dtype.itemsize < 4 else samples  # float16 sums overflow
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused by the caller
        mono = wide.mean(axis=0) if wide.ndim == 2 else wide
        return mono.astype(np.float32, copy=False)

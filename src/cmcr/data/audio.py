"""Sounds: files and arrays to mono float32 samples at the rate an encoder wants."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from cmcr.errors import SampleError

Sound = str | Path | Mapping[str, Any]


def read_audio(source: Sound, sample_rate_hz: int) -> NDArray[np.float32]:
    """Decode one sound, mix it down to mono by the mean of its channels and resample it.

    Args:
        source: a path (wav, flac, ogg, opus, mp3) or `{"array": samples, "sampling_rate": rate}` with samples `(n,)` or
            `(channels, n)`, floating point in [-1, 1].
        sample_rate_hz: the rate to bring it to.

    Returns:
        `(n,)` float32 samples.

    Raises:
        SampleError: no such file, not a sound, empty, NaN, or a mapping of another kind.
    """
    samples, rate = _from_mapping(source) if isinstance(source, Mapping) else _from_file(source)
    name = "the sound" if isinstance(source, Mapping) else str(source)
    if samples.size == 0:
        raise SampleError(f"{name}: holds no samples.")
    if not np.isfinite(samples).all():
        raise SampleError(f"{name}: holds NaN or infinity.")
    if rate == sample_rate_hz:
        return samples
    return np.asarray(soxr.resample(samples, rate, sample_rate_hz), dtype=np.float32)


def window_of(samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Take the middle `length` samples of a sound; a shorter one gets silence behind it. Nothing is random."""
    if len(samples) >= length:
        start = (len(samples) - length) // 2
        return samples[start : start + length]
    return np.pad(samples, (0, length - len(samples)))


def _from_file(source: str | Path) -> tuple[NDArray[np.float32], int]:
    if not isinstance(source, str | os.PathLike):
        raise SampleError(
            f"a sound must be a path or {{'array', 'sampling_rate'}}, got {type(source).__name__}. An array alone does not "
            "say its rate."
        )
    if not Path(source).is_file():
        raise SampleError(f"{source}: no such sound.")
    try:
        samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise SampleError(f"{source}: the sound cannot be decoded ({error.error_string}).") from error
    return samples.mean(axis=1), int(rate)


def _from_mapping(source: Mapping[str, Any]) -> tuple[NDArray[np.float32], int]:
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
    mono = samples.mean(axis=0) if samples.ndim == 2 else samples
    return mono.astype(np.float32, copy=False), round(float(rate))

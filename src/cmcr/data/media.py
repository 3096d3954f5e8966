"""Sound tracks of m4a, mp4, mov, webm, mkv, aac, wma and avi files to mono samples, through PyAV (the extra `media`)."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmcr.data.stretch import Stretch, cut_short, not_there
from cmcr.errors import SampleError, missing_dependency

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

Mono = NDArray[np.float32]

_QUICKTIME_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_DURATION_TAG = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")
_SLACK_SECONDS = 0.1  # encoders pad and prime by less than this, and containers round


def media_format(head: bytes) -> str | None:
    """Say which of FFmpeg's readers a file needs by its first 16 bytes; `None`: it is no file for PyAV.

    The reader is named and never left to FFmpeg's guess: some of those it may guess open further files and addresses.
    """
    if head[4:8] in _QUICKTIME_ATOMS:
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"\x30\x26\xb2\x75"):
        return "asf"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # an ADTS header; in mp3 the layer bits are not 0
        return "aac"
    return None


def read_sound_track(file: Path | io.BytesIO, name: str, reader: str, stretch: Stretch) -> tuple[Mono, int]:
    """Decode a stretch of the first sound track, mixed down by the mean of its channels.

    The mean is ours: PyAV's own mixing to mono is 1.41 times louder. What lies before the stretch is decoded and dropped,
    since these containers cannot be sought in to the sample; decoding stops where the stretch ends.

    Args:
        file: a path or the bytes.
        name: how messages call it.
        reader: as `media_format` says.
        stretch: what to read.

    Returns:
        `(n,)` float32 samples and their rate in hertz.

    Raises:
        SampleError: no sound track, not decodable, or shorter than its header promises by more than 0.1 s. A header
            without a length (live recordings, bare aac) promises nothing.
        MissingDependencyError: PyAV is not installed.
    """
    av = _pyav(name)
    with file.open("rb") if isinstance(file, Path) else io.BytesIO(file.getbuffer()) as opened:
        try:
            with av.open(opened, format=reader, metadata_errors="ignore") as container:
                if not container.streams.audio:
                    raise SampleError(f"{name}: holds no sound track.")
                return _decode(av, container, name, reader, stretch)
        except av.FFmpegError as error:
            raise SampleError(f"{name}: the sound cannot be decoded ({error.strerror}).") from error


def _decode(av: Any, container: InputContainer, name: str, reader: str, stretch: Stretch) -> tuple[Mono, int]:
    stream = container.streams.audio[0]
    rate = int(getattr(stream, "rate", 0) or 0)  # PyAV leaves the attribute out where it has no decoder
    if rate < 1:
        raise SampleError(f"{name}: the sound cannot be decoded (its header names no known codec or no sample rate).")
    promised = None if reader == "aac" else _promised_seconds(container, stream)
    if promised is None:
        start, length = stretch.open_span(rate, name)
    else:
        start, length = stretch.span(round(promised * rate), rate, name)
    if stretch.length_seconds is None:
        length = None  # encoders pad: what stands behind the promised end is there all the same
    samples, position = _collect(av, container, name, start, length)
    wanted = promised if promised is None or length is None else (start + length) / rate
    if promised is not None and wanted is not None and position / rate < wanted - _SLACK_SECONDS:
        raise cut_short(name, promised=promised, got=position / rate)
    if start and start >= position:
        raise not_there(name, start / rate, position / rate)
    return samples, rate


def _collect(av: Any, container: InputContainer, name: str, start: int, length: int | None) -> tuple[Mono, int]:
    """Keep samples `start` to `start + length` of a track; also say how many were decoded."""
    stream = container.streams.audio[0]
    rate = int(stream.rate)  # decoding damaged frames may change it
    stop = sys.maxsize if length is None else start + length
    kept = [np.zeros(0, dtype=np.float32)]
    position = 0
    try:
        for block in _mono_blocks(av, container, stream):
            kept.append(block[max(0, start - position) : max(0, stop - position)])
            position += len(block)
            if position >= stop:
                break
    except (av.FFmpegError, ValueError) as error:  # a ValueError where the layout of the channels changes on the way
        reached = position / rate
        raise SampleError(
            f"{name}: the sound cannot be decoded beyond {reached:.2f} s ({error}). Fetch it again."
        ) from error
    return np.concatenate(kept), position


def _mono_blocks(av: Any, container: InputContainer, stream: AudioStream) -> Iterator[Mono]:
    planar = av.AudioResampler(format="fltp")  # changes the sample format alone: same rate, same channels
    for frame in container.decode(stream):
        for part in planar.resample(frame):
            with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused by the caller
                yield part.to_ndarray().mean(axis=0)


def _promised_seconds(container: InputContainer, stream: AudioStream) -> float | None:
    """Find the length of the track: in its header, in Matroska's tag, or in the container's header if it is alone."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if tag := _DURATION_TAG.fullmatch(stream.metadata.get("DURATION", "")):
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    if len(container.streams) == 1 and container.duration:
        return container.duration / 1e6
    return None


def _pyav(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise missing_dependency("av", extra="media", purpose=f"sounds in m4a, mp4, mov and webm ({name})") from error
    return av

"""Videos and other containers through PyAV (the extra `media`): single frames as pictures, and sound tracks."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcr.data.paths import FilePath, file_of
from cmcr.errors import ConfigError, SampleError, missing_dependency
from cmcr.interruption import held_back

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

Mono = NDArray[np.float32]

_QUICKTIME_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_DURATION_TAG = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")
SOUND_SLACK_SECONDS = 0.1  # encoders pad and prime by less than this, and containers round
MOST_FRAMES = 5000
"""How many frames are decoded for one: those from the key frame before it on."""
_FRAME_SLACK_SECONDS = 1.0  # the last frame stays on the screen; sound tracks are often a little longer


def media_format(head: bytes) -> str | None:
    """Choose the FFmpeg reader of a file by its first 16 bytes; `None` if it is not a container that PyAV must read.

    FFmpeg must not guess the reader itself: some of its readers open further files and network addresses.
    """
    if head[4:8] in _QUICKTIME_ATOMS:
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    return "avi" if head.startswith(b"RIFF") and head[8:12] == b"AVI " else None


@dataclass(frozen=True)
class SoundTrack:
    """An open sound.

    Args:
        rate: in hertz.
        channels: of which the mean is taken.
        total: the number of samples of one channel in its header; `None` where the header gives none.
        read: `read(start, stop)` decodes mono blocks from sample `start` up to `stop`, or to the end if that is earlier.
    """

    rate: int
    channels: int
    total: int | None
    read: Callable[[int, int], Iterable[Mono]]


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video: the one on the screen at a moment. `read_image` takes it wherever it takes a path.

    Args:
        path: the file.
        at_seconds: the moment, counted from the first frame, at least 0; `None` is the middle.

    Raises:
        ConfigError: a moment out of range.
    """

    path: FilePath
    at_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.at_seconds is not None and not (math.isfinite(self.at_seconds) and self.at_seconds >= 0):
            raise ConfigError(f"at_seconds must be at least 0, got {self.at_seconds!r}.")

    def __str__(self) -> str:
        """Name it in messages."""
        return f"{self.path} (frame {'in the middle' if self.at_seconds is None else f'at {self.at_seconds:g} s'})"


def read_frame(frame: VideoFrame) -> Image.Image:
    """Decode one frame of the first picture track: the last that is shown at or before the moment.

    Decoding starts at the key frame before it and gives the same pixels as decoding from the beginning. The frame is rotated
    upright by the video's metadata. A moment up to a second after the last frame gives the last frame.

    Returns:
        RGB.

    Raises:
        SampleError: no such file, not a video (mp4, mov, webm, mkv, avi), no pictures in it, a moment after its end,
            cut short, the middle of a video that does not say its length, frames of more than
            `PIL.Image.MAX_IMAGE_PIXELS`, or a key frame more than `MOST_FRAMES` before the moment.
        MissingDependencyError: PyAV is not installed.
    """
    with file_of(frame.path, "video").open("rb") as file:
        reader = media_format(file.read(16))
        if reader is None:
            raise SampleError(f"{frame.path}: not a video (mp4, mov, webm, mkv or avi).")
        file.seek(0)
        with _opened(file, str(frame), reader) as container:
            if not container.streams.video:
                raise SampleError(f"{frame.path}: holds no pictures.")
            shown = _shown_at(container, frame)
            # In degrees, counterclockwise; PyAV gives it since version 14.
            upright: Image.Image = shown.to_image().rotate(round(getattr(shown, "rotation", 0)), expand=True)
            return upright


@contextlib.contextmanager
def opened_track(file: BinaryIO, name: str, reader: str) -> Iterator[SoundTrack]:
    """Open the first sound track of a file, to be decoded to the mean of its channels.

    The channels are averaged here because PyAV's own mono is 1.41 times louder. These containers have no exact seek, so
    everything before the part that is read is decoded and dropped; decoding stops where the part ends. `reader` is what
    `media_format` says.

    Raises:
        SampleError: no sound track, or not decodable.
        MissingDependencyError: PyAV is not installed.
    """
    with _opened(file, name, reader) as container:
        if not container.streams.audio:
            raise SampleError(f"{name}: holds no sound track.")
        stream = container.streams.audio[0]
        rate = int(getattr(stream, "rate", 0) or 0)  # PyAV leaves the attribute out where it has no decoder
        if rate < 1:
            raise SampleError(f"{name}: cannot be decoded (its header names no known codec or no sample rate).")
        seconds = _length_seconds(container, stream)
        total = None if seconds is None else round(seconds * rate)
        yield SoundTrack(rate, max(1, stream.channels), total, partial(_mono_blocks, container, name))


@contextlib.contextmanager
def _opened(file: BinaryIO, name: str, reader: str) -> Iterator[InputContainer]:
    try:
        import av
    except ImportError as error:
        raise missing_dependency("av", extra="media", purpose=f"videos, m4a, mp4, mov and webm ({name})") from error
    # Version 19 reads any metadata and has no such option.
    options: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
    try:
        # An interrupt inside FFmpeg's calls into Python is lost.
        with held_back(), av.open(file, "r", format=reader, **options) as container:
            yield container
    except av.FFmpegError as error:
        raise SampleError(f"{name}: cannot be decoded ({error.strerror}). Fetch it again.") from error


def _mono_blocks(container: InputContainer, name: str, start: int, stop: int) -> Iterator[Mono]:
    """Decode a track from its beginning; give samples `start` to `stop`."""
    import av

    position = 0
    planar = av.AudioResampler(format="fltp")  # changes the sample format alone: same rate, same channels
    try:
        for frame in container.decode(container.streams.audio[0]):
            for part in planar.resample(frame):
                with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity are refused by the caller
                    block = part.to_ndarray().mean(axis=0)
                yield block[max(0, start - position) : max(0, stop - position)]
                position += len(block)
                if position >= stop:
                    return
    except ValueError as error:  # from FFmpeg for damaged data, from PyAV where the channel layout changes
        raise SampleError(f"{name}: cannot be decoded beyond sample {position} ({error}). Fetch it again.") from error


def _length_seconds(container: InputContainer, stream: VideoStream | AudioStream) -> float | None:
    """Find the length of a track: in its header, in Matroska's tag, or in the container's header.

    The container's is that of its longest track, so it is used for a sound only where the sound is the only track.
    """
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if tag := _DURATION_TAG.fullmatch(stream.metadata.get("DURATION", "")):
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    alone = len(container.streams) == 1 or stream.type == "video"
    return container.duration / 1e6 if container.duration and alone else None


def _shown_at(container: InputContainer, frame: VideoFrame) -> Any:
    stream = container.streams.video[0]
    if Image.MAX_IMAGE_PIXELS is not None:
        stream.codec_context.options = {"max_pixels": str(Image.MAX_IMAGE_PIXELS)}
    length = _length_seconds(container, stream)
    if frame.at_seconds is None and length is None:
        raise SampleError(f"{frame.path}: does not say its length, so its middle is unknown. Give at_seconds.")
    seconds = (length or 0) / 2 if frame.at_seconds is None else frame.at_seconds
    if length is not None and seconds > length + _FRAME_SLACK_SECONDS:
        raise SampleError(f"{frame.path}: lasts {length:.2f} s; there is no frame at {seconds:.2f} s.")
    if stream.time_base is None:
        raise SampleError(f"{frame.path}: does not say when its pictures are shown.")
    moment = int((stream.start_time or 0) + math.floor(seconds / float(stream.time_base) + 1e-6))
    for start in (moment, stream.start_time or 0):  # from the beginning where the seek went past the moment
        container.seek(start, stream=stream)
        found, at_end = _last_until(container, stream, moment, frame)
        if found is not None:
            break
    else:
        raise SampleError(f"{frame}: no picture could be decoded. Fetch it again.")
    late = float((moment - found.pts) * stream.time_base)
    if at_end and late > _FRAME_SLACK_SECONDS:
        raise SampleError(
            f"{frame}: its last picture that can be decoded is shown {late:.2f} s earlier: cut short. Fetch it again."
        )
    return found


def _last_until(container: InputContainer, stream: VideoStream, moment: int, frame: VideoFrame) -> tuple[Any, bool]:
    """Decode up to a moment (in the track's own time); also report whether the video ended before it."""
    found = None
    for number, decoded in enumerate(container.decode(stream)):
        if number == MOST_FRAMES:
            raise SampleError(f"{frame}: no key frame in the {MOST_FRAMES} frames before it. Write it again with more.")
        if decoded.pts is None:
            continue
        if decoded.pts > moment:
            # The first picture of a video that starts late is shown from 0; after a late seek it is not the one wanted.
            first = found is None and decoded.pts == (stream.start_time or 0)
            return (decoded if first else found), False
        found = decoded
    return found, True

"""Single frames of videos, as pictures: mp4, mov, webm, mkv, avi and wmv, through PyAV (the extra `media`)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from cmcr.data.media import media_format
from cmcr.data.paths import FilePath, file_of
from cmcr.errors import ConfigError, SampleError, missing_dependency

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_DURATION_TAG = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")
_SLACK_SECONDS = 1.0  # the last frame stays on the screen for a while; sound tracks are often a little longer
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video: the one on the screen at a moment. `read_image` takes it wherever it takes a path.

    Args:
        path: a path or `file://` address.
        at: the moment, from the first frame on; by default the middle.
        unit: of `at`: `share` of the length, 0 to 1, or `seconds`.

    Raises:
        ConfigError: a moment out of range, or another unit.
    """

    path: FilePath
    at: float = 0.5
    unit: Literal["share", "seconds"] = "share"

    def __post_init__(self) -> None:
        if self.unit not in ("share", "seconds"):
            raise ConfigError(f"unit: expected 'share' or 'seconds', got {self.unit!r}.")
        if not (math.isfinite(self.at) and 0 <= self.at <= (1 if self.unit == "share" else math.inf)):
            wanted = "a share from 0 to 1" if self.unit == "share" else "seconds from 0 on"
            raise ConfigError(f"at: expected {wanted}, got {self.at!r}.")

    def __str__(self) -> str:
        """Name it in messages."""
        where = f"{self.at:g} of its length" if self.unit == "share" else f"{self.at:g} s"
        return f"{self.path} (frame at {where})"


def read_frame(frame: VideoFrame) -> Image.Image:
    """Decode one frame of the first picture track: the last that is shown at or before the moment.

    The same frame comes out as by decoding the video from its beginning, but decoding begins at the key frame before it.
    Turned upright where the video says how it was held. A moment behind the last frame, by up to a second, gives that one.

    Returns:
        RGB.

    Raises:
        SampleError: no such file, not a video, no pictures in it, a moment that is not there, cut short, or a video without
            a length of which a share is asked.
        MissingDependencyError: PyAV is not installed.
    """
    file = file_of(frame.path, "video")
    av = _pyav(str(frame.path))
    with file.open("rb") as opened:
        reader = media_format(opened.read(16))
        if reader is None or reader == "aac":
            raise SampleError(f"{frame.path}: not a video (mp4, mov, webm, mkv, avi or wmv).")
        opened.seek(0)
        try:
            with av.open(opened, format=reader, metadata_errors="ignore") as container:
                if not container.streams.video:
                    raise SampleError(f"{frame.path}: holds no pictures.")
                return _upright(_shown_at(container, frame))
        except av.FFmpegError as error:
            raise SampleError(f"{frame}: cannot be decoded ({error.strerror}). Fetch it again.") from error


def _shown_at(container: InputContainer, frame: VideoFrame) -> Any:
    stream = container.streams.video[0]
    seconds = _wanted_seconds(container, stream, frame)
    if stream.time_base is None:
        raise SampleError(f"{frame.path}: does not say when its pictures are shown.")
    moment = int((stream.start_time or 0) + math.floor(seconds / float(stream.time_base) + 1e-6))
    container.seek(moment, stream=stream)
    found, at_end = _last_until(container, stream, moment)
    if found is None:  # the index led behind the moment
        container.seek(stream.start_time or 0, stream=stream)
        found, at_end = _last_until(container, stream, moment)
    if found is None:
        raise SampleError(f"{frame}: no picture could be decoded. Fetch it again.")
    late = float((moment - found.pts) * stream.time_base)
    if at_end and late > _SLACK_SECONDS:
        raise SampleError(
            f"{frame}: its last picture that can be decoded is shown {late:.2f} s earlier: cut short. Fetch it again."
        )
    return found


def _last_until(container: InputContainer, stream: VideoStream, moment: int) -> tuple[Any, bool]:
    """Decode up to a moment (in the track's own time); also say whether the video ended before it."""
    found = None
    for decoded in container.decode(stream):
        if decoded.pts is None:
            continue
        if decoded.pts > moment:
            # A video that begins a little late shows its first picture at 0; a seek that came out late does not.
            first = found is None and decoded.pts == (stream.start_time or 0)
            return (decoded if first else found), False
        found = decoded
    return found, True


def _wanted_seconds(container: InputContainer, stream: VideoStream, frame: VideoFrame) -> float:
    length = _length_seconds(container, stream)
    if frame.unit == "share":
        if length is None:
            raise SampleError(f"{frame.path}: does not say its length; ask for a frame in seconds.")
        return frame.at * length
    if length is not None and frame.at > length + _SLACK_SECONDS:
        raise SampleError(f"{frame.path}: lasts {length:.2f} s; a frame at {frame.at:.2f} s is not there.")
    return frame.at


def _length_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """Find the length of the pictures: in the track's header, in Matroska's tag, or in the container's header."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if tag := _DURATION_TAG.fullmatch(stream.metadata.get("DURATION", "")):
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    return container.duration / 1e6 if container.duration else None


def _upright(decoded: Any) -> Image.Image:
    picture: Image.Image = decoded.to_image()
    turn = _TURNS.get(round(getattr(decoded, "rotation", 0)) % 360)  # PyAV says it counterclockwise, since version 14
    return picture.transpose(turn) if turn is not None else picture


def _pyav(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise missing_dependency("av", extra="media", purpose=f"frames of videos ({name})") from error
    return av

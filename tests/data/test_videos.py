"""Frames of videos: the exact one, wherever the key frames lie."""

import struct

import numpy as np
import pytest
from PIL import Image

from cmcr.data import videos
from cmcr.data.images import read_image
from cmcr.data.videos import VideoFrame, read_frame
from cmcr.errors import ConfigError, SampleError

av = pytest.importorskip("av")

RATE, FRAMES = 10, 40  # 4 s; frame i is shown from i / 10 s on
# Frames that show their number.
GREYS = [np.full((32, 32, 3), 20 + 5 * number, dtype=np.uint8) for number in range(FRAMES)]


def write_video(path, frames, *, key_every=8, b_frames=0):
    """Write arrays `(H, W, 3)` at `RATE` frames a second."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", format={".mkv": "matroska"}.get(path.suffix, path.suffix[1:])) as container:
        codec = "libvpx" if path.suffix == ".webm" else "mpeg4"
        stream = container.add_stream(codec, rate=RATE, width=width, height=height, pix_fmt="yuv420p")
        stream.gop_size, stream.bit_rate, stream.max_b_frames = key_every, 2_000_000, b_frames
        for number, pixels in enumerate(frames):
            image = av.VideoFrame.from_ndarray(pixels)
            image.pts = number
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def number_of(picture):
    return round((float(np.asarray(picture.convert("L"), dtype=np.float64).mean()) - 20) / 5)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "avi"])
@pytest.mark.parametrize("key_every", [1, 8, 40])
def test_the_frame_on_the_screen_is_found_wherever_key_frames_lie(tmp_path, suffix, key_every):
    path = write_video(tmp_path / f"v.{suffix}", GREYS, key_every=key_every)
    found = [number_of(read_frame(VideoFrame(path, second))) for second in (0, 0.1, 0.15, 1.95, 3.2, 3.9, 4.5)]
    assert found == [0, 1, 1, 19, 32, 39, 39]
    assert number_of(read_image(VideoFrame(path))) == 20  # half of 4 s


def test_seeking_gives_the_pixels_of_decoding_from_the_beginning(tmp_path, rng):
    noise = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(30)]
    path = write_video(tmp_path / "v.mp4", noise, key_every=7, b_frames=2)
    with av.open(str(path)) as container:
        decoded = [np.asarray(frame.to_image()) for frame in container.decode(video=0)]
    assert len(decoded) == 30
    for number in (0, 5, 6, 7, 13, 14, 29):
        np.testing.assert_array_equal(read_frame(VideoFrame(path, number / RATE)), decoded[number])


def test_a_video_held_sideways_is_turned_upright(tmp_path):
    pixels = np.zeros((32, 64, 3), dtype=np.uint8)
    pixels[:, :32] = 255  # bright on the left
    path = write_video(tmp_path / "v.mp4", [pixels])
    assert read_frame(VideoFrame(path, 0)).size == (64, 32)
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44  # of the track's header: how to lay the pictures on the screen
    a_quarter_clockwise = (0, 0x10000, 0, -0x10000, 0, 0, 32 << 16, 0, 0x40000000)
    content[matrix : matrix + 36] = struct.pack(">9i", *a_quarter_clockwise)
    path.write_bytes(content)
    turned = read_frame(VideoFrame(path, 0))
    assert turned.size == (32, 64)
    shades = np.asarray(turned.convert("L"))
    assert shades[:24].mean() > 200  # what was on the left is on top
    assert shades[40:].mean() < 50


def test_frames_that_would_take_long_or_much_memory(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", GREYS[1:2] * 20, key_every=20)
    monkeypatch.setattr(videos, "MOST_FRAMES", 4)
    assert number_of(read_frame(VideoFrame(path, 0.1))) == 1
    with pytest.raises(SampleError, match="no key frame in the 4 frames"):
        read_frame(VideoFrame(path, 0.7))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(SampleError, match=r"v\.mp4"):
        read_frame(VideoFrame(path, 0))


def test_frames_that_cannot_be_read(tmp_path):
    content = write_video(tmp_path / "whole.mkv", GREYS).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 3])
    assert number_of(read_frame(VideoFrame(tmp_path / "cut.mkv", 0.5))) == 5
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    (tmp_path / "head.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    for name, at_seconds, message in (
        ("whole.mkv", 9, r"lasts 4\.00 s"),
        ("cut.mkv", 3.9, r"frame at 3\.9 s"),
        ("picture.png", None, "not a video"),
        ("nothing.mp4", None, "no such video"),
        ("head.mp4", None, "cannot be decoded|no pictures"),
    ):
        with pytest.raises(SampleError, match=rf"{name}.*({message})"):
            read_frame(VideoFrame(tmp_path / name, at_seconds))
    for at_seconds in (-1, float("nan")):
        with pytest.raises(ConfigError, match="at_seconds"):
            VideoFrame("v.mp4", at_seconds)

"""Frames of videos: the exact one, wherever the key frames lie."""

import struct
import sys

import numpy as np
import pytest
from PIL import Image

from cmcr.data.audio import read_audio
from cmcr.data.images import read_image
from cmcr.data.sound_clips import SoundClip
from cmcr.data.videos import VideoFrame, read_frame
from cmcr.errors import ConfigError, MissingDependencyError, SampleError

av = pytest.importorskip("av")

RATE, FRAMES = 10, 40  # 4 s; frame i is shown from i / 10 s on
CONTAINERS = {
    "mp4": ("mp4", "mpeg4"),
    "mov": ("mov", "mpeg4"),
    "mkv": ("matroska", "mpeg4"),
    "webm": ("webm", "libvpx"),
    "avi": ("avi", "mpeg4"),
}


def grey(number):
    return 20 + 5 * number


def write_video(path, kind, codec, *, key_every=8, frames=FRAMES):
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=RATE, width=32, height=32, pix_fmt="yuv420p")
        stream.gop_size = key_every
        stream.bit_rate = 2_000_000
        for number in range(frames):
            image = av.VideoFrame.from_ndarray(np.full((32, 32, 3), grey(number), dtype=np.uint8))
            image.pts = number
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def number_of(picture):
    return round((float(np.asarray(picture.convert("L"), dtype=np.float64).mean()) - 20) / 5)


@pytest.mark.parametrize("suffix", CONTAINERS)
@pytest.mark.parametrize("key_every", [1, 8, 40])
def test_the_frame_on_the_screen_is_found_wherever_key_frames_lie(tmp_path, suffix, key_every):
    path = write_video(tmp_path / f"v.{suffix}", *CONTAINERS[suffix], key_every=key_every)
    found = [number_of(read_frame(VideoFrame(path, second, "seconds"))) for second in (0, 0.1, 0.15, 1.95, 3.2, 3.9)]
    assert found == [0, 1, 1, 19, 32, 39]
    assert number_of(read_image(VideoFrame(path))) == 20  # half of 4 s
    assert number_of(read_image(VideoFrame(path, 1.0))) == 39


def test_seeking_gives_the_pixels_of_decoding_from_the_beginning(tmp_path, rng):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=RATE, width=64, height=48, pix_fmt="yuv420p")
        stream.gop_size, stream.max_b_frames = 7, 2
        for number in range(30):
            image = av.VideoFrame.from_ndarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
            image.pts = number
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        decoded = [np.asarray(frame.to_image()) for frame in container.decode(video=0)]
    assert len(decoded) == 30
    for number in (0, 5, 6, 7, 13, 14, 29):
        np.testing.assert_array_equal(read_frame(VideoFrame(path, number / RATE, "seconds")), decoded[number])


def test_a_video_held_sideways_is_turned_upright(tmp_path):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=RATE, width=64, height=32, pix_fmt="yuv420p")
        pixels = np.zeros((32, 64, 3), dtype=np.uint8)
        pixels[:, :32] = 255  # bright on the left
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
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


def test_a_moment_behind_the_end_is_refused(tmp_path):
    path = write_video(tmp_path / "v.mp4", "mp4", "mpeg4")
    assert number_of(read_frame(VideoFrame(path, 4.5, "seconds"))) == 39
    with pytest.raises(SampleError, match=r"v\.mp4: lasts 4\.00 s; a frame at 9\.00 s is not there"):
        read_frame(VideoFrame(path, 9, "seconds"))


def test_a_video_that_is_cut_short_is_refused(tmp_path):
    path = write_video(tmp_path / "v.mkv", "matroska", "mpeg4")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    assert number_of(read_frame(VideoFrame(path, 0.5, "seconds"))) == 5
    with pytest.raises(SampleError, match=r"v\.mkv \(frame at 3\.9 s\)"):
        read_frame(VideoFrame(path, 3.9, "seconds"))


def test_what_is_no_video_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    with pytest.raises(SampleError, match=r"p\.png: not a video"):
        read_image(VideoFrame(tmp_path / "p.png"))
    with pytest.raises(SampleError, match=r"nothing\.mp4: no such video"):
        read_image(VideoFrame(tmp_path / "nothing.mp4"))
    (tmp_path / "head.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    with pytest.raises(SampleError, match=r"head\.mp4.*cannot be decoded|head\.mp4: holds no pictures"):
        read_image(VideoFrame(tmp_path / "head.mp4"))


@pytest.mark.parametrize(("at", "unit"), [(1.2, "share"), (-1, "seconds"), (float("nan"), "share")])
def test_moments_out_of_range_are_refused(at, unit):
    with pytest.raises(ConfigError, match="at: expected"):
        VideoFrame("v.mp4", at, unit)
    with pytest.raises(ConfigError, match="unit: expected 'share' or 'seconds', got 'frames'"):
        VideoFrame("v.mp4", 0, "frames")


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", "mp4", "mpeg4", frames=2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"frames of videos.*v\.mp4.*cmcr\[media\]"):
        read_image(VideoFrame(path))


def test_a_clip_of_a_sound_is_read_as_that_part(tmp_path):
    import soundfile

    samples = np.linspace(-0.5, 0.5, 3 * 8000, dtype=np.float32)
    soundfile.write(tmp_path / "s.wav", samples, 8000, subtype="FLOAT")
    clip = SoundClip(tmp_path / "s.wav", 1, 1)
    np.testing.assert_array_equal(read_audio(clip, 8000), samples[8000:16000])
    with pytest.raises(ConfigError, match=r"s\.wav \(1 s from 1 s on\): a SoundClip says itself"):
        read_audio(clip, 8000, start_seconds=0)
    with pytest.raises(ConfigError, match="length_seconds must be above 0"):
        SoundClip("s.wav", 0, 0)
    with pytest.raises(SampleError, match=r"s\.wav: lasts 3\.00 s; a part from 9\.00 s on is not there"):
        read_audio(SoundClip(tmp_path / "s.wav", 9, 1), 8000)

"""Sounds: every format and depth against the samples that were written, every broken file against its reason."""

import io
import struct
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cmcr.data.audio import SoundClip, read_audio, window_of
from cmcr.errors import ConfigError, MissingDependencyError, SampleError


def tone(rate, seconds=1.0, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def noisy(seconds, rate=44_100):
    """A sound that compresses badly, so that cutting its file cuts the sound."""
    noise = np.random.default_rng(0).normal(size=int(rate * seconds))
    return (tone(rate, seconds) * 0.5 + 0.1 * noise).astype(np.float32)


def written(samples, rate, kind="WAV", subtype=None):
    buffer = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(buffer, "w", rate, channels, subtype, format=kind) as file:
        for at in range(0, len(samples), 4096):  # libvorbis overflows the stack on long writes
            file.write(samples[at : at + 4096])
    return buffer.getvalue()


def encoded(samples, rate, kind, codec, *, film=False, **options):
    """A container written by PyAV from `(channels, n)` samples; in a film, pictures stand before them."""
    av = pytest.importorskip("av")
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "track"  # not a buffer: moving the index to the front reads the file again
    layout = "mono" if len(samples) == 1 else "stereo"
    with folder, av.open(str(path), "w", format=kind, options=options) as container:
        if film:
            picture = container.add_stream("mpeg4", rate=10, width=16, height=16, pix_fmt="yuv420p")
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if film:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), dtype=np.uint8))))
            container.mux(picture.encode(None))
        fit = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate = rate
        for part in fit.resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
        container.close()
        return path.read_bytes()


TRACKS = {
    "m4a": ("ipod", "aac", 44_100),
    "mp4": ("mp4", "aac", 44_100),
    "mov": ("mov", "pcm_s16le", 44_100),
    "webm": ("webm", "libopus", 48_000),
    "mkv": ("matroska", "pcm_s16le", 44_100),
    "aac": ("adts", "aac", 44_100),
}


@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", None), ("FLAC", None), ("OGG", None), ("OGG", "OPUS"), ("MP3", None)]
)
def test_sounds_of_any_rate_come_at_the_rate_asked_for(kind, subtype):
    content = written(np.stack([tone(48_000), 0 * tone(48_000)], axis=1), 48_000, kind, subtype)
    sound = read_audio(content, 8000)
    assert (sound.dtype, len(sound)) == (np.float32, 8000)
    # The mean of the channels: half of the one that sounds.
    np.testing.assert_allclose(sound[500:7500], 0.5 * tone(8000)[500:7500], atol=0.02)


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (11_025, 6), (22_050, 1), (44_100, 2), (192_000, 6)])
def test_any_rate_and_channel_count(rate, channels):
    sound = read_audio(written(np.stack([tone(rate, 0.2)] * channels, axis=1), rate), 16_000)
    assert len(sound) == 3200
    np.testing.assert_allclose(sound[300:2900], tone(16_000, 0.2)[300:2900], atol=0.01)


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-4, 4, width=32)))
def test_floating_point_wavs_come_back_exactly(samples):
    for subtype in ("FLOAT", "DOUBLE"):
        np.testing.assert_array_equal(read_audio(written(samples, 8000, subtype=subtype), 8000), samples)


@given(hnp.arrays(np.int16, st.tuples(st.integers(1, 50), st.integers(1, 3))))
def test_lossless_formats_come_back_as_the_mean_of_their_channels(samples):
    for kind, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "PCM_32"),
        ("FLAC", "PCM_16"),
        ("AIFF", "PCM_16"),
    ):
        sound = read_audio(written(samples, 8000, kind, subtype), 8000)
        np.testing.assert_allclose(sound, samples.astype(np.float64).mean(axis=1) / 32768, atol=1e-6)


@pytest.mark.parametrize("suffix", TRACKS)
def test_sound_tracks_are_the_mean_of_their_channels(tmp_path, suffix):
    kind, codec, rate = TRACKS[suffix]
    content = encoded(np.stack([tone(rate), 0 * tone(rate)]), rate, kind, codec)
    path = tmp_path / f"ä {suffix}.wav"  # the content decides and not the name
    path.write_bytes(content)
    sound = read_audio(path, rate)
    assert abs(len(sound) - rate) < 0.1 * rate
    # PyAV's own mono would be 0.354 here: 0.5 / sqrt(2).
    assert np.sqrt(2 * np.mean(sound[rate // 4 : rate // 2] ** 2)) == pytest.approx(0.25, abs=0.005)
    np.testing.assert_array_equal(read_audio(content, rate), sound)
    part = read_audio(SoundClip(path.as_uri(), 0.25, 0.5), rate)
    np.testing.assert_array_equal(part, sound[rate // 4 : rate // 4 + rate // 2])


def test_lossless_tracks_come_back_exactly_and_films_give_their_track():
    samples = np.round(noisy(0.5) * 32767).astype(np.float32)[None] / 32768
    for film in (False, True):
        sound = read_audio(encoded(samples, 44_100, "mov", "pcm_s16le", film=film), 44_100)
        np.testing.assert_allclose(sound, samples[0], atol=1e-6)


def test_containers_need_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"a\.m4a.*cmcr\[media\]"):
        read_audio(tmp_path / "a.m4a", 8000)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_clips_equal_the_part_of_the_whole(tmp_path, kind):
    (tmp_path / "a").write_bytes(written(noisy(3), 44_100, kind))
    whole = read_audio(tmp_path / "a", 44_100)
    for start, length in ((0, 1), (1, 1), (2.5, 9), (0, 99)):
        part = whole[round(start * 44_100) : round((start + length) * 44_100)]
        np.testing.assert_allclose(read_audio(SoundClip(tmp_path / "a", start, length), 44_100), part, atol=1e-6)
    with pytest.raises(SampleError, match=r"lasts 3\.0\d s"):
        read_audio(SoundClip(tmp_path / "a", 9, 1), 44_100)
    for start, length in ((-1, 1), (float("nan"), 1), (0, 0)):
        with pytest.raises(ConfigError, match="_seconds must be"):
            SoundClip("s.wav", start, length)


def test_a_part_of_a_long_file_takes_the_memory_of_the_part(tmp_path):
    with soundfile.SoundFile(tmp_path / "hour.flac", "w", 8000, 2) as file:
        for _ in range(60):
            file.write(np.zeros((8000 * 60, 2), dtype=np.int16))
    tracemalloc.start()
    part = read_audio(SoundClip(tmp_path / "hour.flac", 1800, 10), 8000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(part) == 80_000
    assert peak < 4e6  # the whole would be 230 MB


def test_sound_mappings():
    np.testing.assert_array_equal(read_audio({"array": tone(8000), "sampling_rate": 8000}, 8000), tone(8000))
    stereo = np.stack([tone(8000), -tone(8000)])
    np.testing.assert_array_equal(read_audio({"array": stereo, "sampling_rate": 8000}, 8000), np.zeros(8000))
    half = np.full((8, 9), 60_000, dtype=np.float16)  # sums beyond float16
    assert read_audio({"array": half, "sampling_rate": 8000}, 8000)[0] == 60_000
    assert read_audio({"array": np.zeros(1), "sampling_rate": 8000}, 8000).tolist() == [0]  # silence is a sound
    with pytest.raises(SampleError, match="less than one at 8000 Hz"):
        read_audio({"array": np.ones(1), "sampling_rate": 48_000}, 8000)


@pytest.mark.parametrize(
    ("array", "rate", "message"),
    [
        (np.zeros(5, dtype=np.int16), 8000, "Divide 16-bit integers"),
        (np.zeros((9, 2)), 8000, r"transpose"),
        ([[0.0, 0.1], [0.2]], 8000, "array"),
        (np.zeros(0), 8000, "no samples"),
        (np.array([0.0, np.nan]), 8000, "NaN or infinity"),
        (np.array([[np.inf, 0], [-np.inf, 0]]), 8000, "NaN or infinity"),
        (np.array([1e300, 0.0]), 8000, "NaN or infinity"),
        *((np.zeros(9), rate, "hertz") for rate in (0, 0.5, float("inf"), True, "8000")),
    ],
)
def test_sound_mappings_that_cannot_be_used(array, rate, message):
    with pytest.raises(SampleError, match=message):
        read_audio({"array": array, "sampling_rate": rate}, 8000)


def cut(content, share):
    return content[: int(len(content) * share)]


def with_data_size(content, size):
    at = content.index(b"data") + 4
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


LONG = noisy(3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be decoded"),
        (b"RIFF", "cannot be decoded"),
        (b"not a sound at all, but words", "cannot be decoded"),
        (written(LONG[:0], 8000), "no samples"),
        (written(np.array([0, np.nan], dtype=np.float32), 8000, subtype="FLOAT"), "NaN or infinity"),
        (written(np.array([0, 1e300]), 8000, subtype="DOUBLE"), "NaN or infinity"),
        (cut(written(LONG, 44_100), 0.5), "cut short: .* 264600 bytes"),
        (with_data_size(written(LONG, 44_100), 1 << 30), "cut short: .* 1073741824 bytes"),
        (cut(written(LONG, 44_100, "OGG"), 0.6), "cut short: its last Ogg page"),
        (written(LONG, 44_100, "OGG")[:-3], "cut short: its last Ogg page|cannot be decoded"),
        (cut(written(LONG, 48_000, "OGG", "OPUS"), 0.6), "cut short: its last Ogg page"),
        (cut(written(LONG, 44_100, "FLAC"), 0.5), "cut short|cannot be decoded"),
        (cut(written(LONG, 44_100, "MP3"), 0.5), r"cut short: the header promises 3\.00 s, only 1\.\d+ s"),
        (written(LONG, 44_100, "MP3")[:40], "cannot be decoded"),
    ],
    ids=(
        "zero-bytes wav-head words no-samples wav-nan wav-beyond-float32 wav-cut wav-lies vorbis-cut vorbis-last-page "
        "opus-cut flac-cut mp3-cut mp3-head"
    ).split(),
)
def test_broken_sounds(tmp_path, content, message):
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    for source, name in ((path, r"x\.wav"), (content, "the sound")):
        with pytest.raises(SampleError, match=rf"{name}: .*({message})"):
            read_audio(source, 8000)


def test_lengths_that_are_not_in_the_header(tmp_path):
    content = written(LONG, 44_100, subtype="PCM_16")
    whole = read_audio(content, 44_100)
    for size in (0xFFFFFFFF, 0x7FFFFFFF):  # what programs write into a pipe
        np.testing.assert_array_equal(read_audio(with_data_size(content, size), 44_100), whole)
    flac = bytearray(written(LONG, 44_100, "FLAC"))
    flac[21] &= 0xF0  # the 36 bits of the number of samples in STREAMINFO
    flac[22:26] = bytes(4)
    with pytest.raises(SampleError, match="does not say its length"):
        read_audio(bytes(flac), 44_100)
    (tmp_path / "a.aac").write_bytes(encoded(tone(44_100)[None], 44_100, "adts", "aac"))
    with pytest.raises(SampleError, match=r"ends before 9\.00 s"):
        read_audio(SoundClip(tmp_path / "a.aac", 9, 1), 44_100)


@pytest.mark.parametrize(
    ("suffix", "share", "message"),
    [
        ("m4a", 0.6, "cannot be decoded beyond"),
        ("webm", 0.6, "cut short"),
        ("mkv", 0.6, "cut short|cannot be decoded beyond"),
        ("mov", 0.6, "cannot be decoded"),
        ("aac", 0.6, "cannot be decoded beyond"),
        ("mp4", 0.01, "cannot be decoded"),
    ],
)
def test_broken_sound_tracks(suffix, share, message):
    kind, codec, rate = TRACKS[suffix]
    options = {"movflags": "+faststart"} if suffix == "m4a" else {}
    content = encoded(noisy(3, rate)[None], rate, kind, codec, **options)
    assert len(read_audio(content, rate)) >= 3 * rate
    with pytest.raises(SampleError, match=rf"the sound: .*({message})"):
        read_audio(cut(content, share), rate)


def test_sources_that_are_no_sounds(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    for source, message in (
        (tmp_path / "nothing.wav", "no such sound"),
        (tmp_path / "folder.wav", "a folder"),
        ("http://example.org/a.wav", "downloads nothing"),
        (np.zeros(5), "An array alone"),
        ({"array": np.zeros(5)}, "'sampling_rate'"),
    ):
        with pytest.raises(SampleError, match=message):
            read_audio(source, 8000)


def test_window_is_the_middle_or_padded_behind():
    assert window_of(np.arange(7, dtype=np.float32), 3).tolist() == [2, 3, 4]
    assert window_of(np.arange(2, dtype=np.float32), 4).tolist() == [0, 1, 0, 0]

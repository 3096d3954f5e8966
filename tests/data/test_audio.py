"""Sounds: every format and depth against the samples that were written, every broken file against its message."""

import io
import struct
import sys
import tempfile
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cmcr.data.audio import read_audio, window_of
from cmcr.errors import ConfigError, MissingDependencyError, SampleError


def tone(rate, seconds=1.0, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def noisy(seconds, rate=44_100):
    """A sound that compresses badly, so that cutting its file cuts the sound."""
    noise = np.random.default_rng(0).normal(size=int(rate * seconds))
    return (tone(rate, seconds) * 0.5 + 0.1 * noise).astype(np.float32)


def written(samples, rate, kind="WAV", subtype=None):
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", rate, 1 if samples.ndim == 1 else samples.shape[1], subtype, format=kind
    ) as file:
        for at in range(0, len(samples), 4096):  # libvorbis overflows the stack on long writes
            file.write(samples[at : at + 4096])
    return buffer.getvalue()


def encoded(samples, rate, kind, codec, streams=1, **options):
    """A container written by PyAV from `(channels, n)` samples; extra streams stand before as in a film."""
    av = pytest.importorskip("av")
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "track"  # not a buffer: moving the index to the front reads the file again
    layout = "mono" if len(samples) == 1 else "stereo"
    with folder, av.open(str(path), "w", format=kind, options=options) as container:
        if streams == 2:
            picture = container.add_stream("mpeg4", rate=10, width=16, height=16, pix_fmt="yuv420p")
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if streams == 2:
            for number in range(10):
                image = av.VideoFrame.from_ndarray(np.full((16, 16, 3), number, dtype=np.uint8))
                image.pts = number
                container.mux(picture.encode(image))
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


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_sounds_of_any_rate_come_at_the_rate_asked_for(tmp_path, suffix):
    soundfile.write(tmp_path / f"a.{suffix}", np.stack([tone(44_100), 0 * tone(44_100)], axis=1), 44_100)
    sound = read_audio(tmp_path / f"a.{suffix}", 8000)
    assert sound.dtype == np.float32
    assert len(sound) == 8000
    # The mean of the channels: half of the one that sounds.
    np.testing.assert_allclose(sound[500:7500], 0.5 * tone(8000)[500:7500], atol=0.02)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channel_count(rate, channels):
    sound = read_audio(written(np.stack([tone(rate, 0.2)] * channels, axis=1), rate), 16_000)
    assert len(sound) == 3200
    np.testing.assert_allclose(sound[300:2900], tone(16_000, 0.2)[300:2900], atol=0.01)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_integer_wavs_against_the_standard_library(width):
    full = 1 << (8 * width - 1)
    levels = np.array([0, full // 2, -full // 2, full - 1, -full])
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(8000)
        stored = levels + 128 if width == 1 else levels  # 8 bits are stored without a sign
        file.writeframes(b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in stored))
    np.testing.assert_allclose(read_audio(buffer.getvalue(), 8000), levels / full, rtol=1e-6)


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-4, 4, width=32)))
def test_floating_point_wavs_come_back_exactly(samples):
    for subtype in ("FLOAT", "DOUBLE"):
        np.testing.assert_array_equal(read_audio(written(samples, 8000, subtype=subtype), 8000), samples)


@given(hnp.arrays(np.int16, st.tuples(st.integers(1, 50), st.integers(1, 3))))
def test_lossless_formats_come_back_as_the_mean_of_their_channels(samples):
    for kind in ("WAV", "FLAC", "AIFF"):
        sound = read_audio(written(samples, 8000, kind, "PCM_16"), 8000)
        np.testing.assert_allclose(sound, samples.astype(np.float64).mean(axis=1) / 32768, atol=1e-6)


def test_opus():
    sound = read_audio(written(tone(48_000), 48_000, "OGG", "OPUS"), 48_000)
    assert len(sound) == 48_000
    np.testing.assert_allclose(sound[2000:-2000], tone(48_000)[2000:-2000], atol=0.03)


@pytest.mark.parametrize("suffix", TRACKS)
def test_sound_tracks_are_the_mean_of_their_channels(tmp_path, suffix):
    kind, codec, rate = TRACKS[suffix]
    content = encoded(np.stack([tone(rate), 0 * tone(rate)]), rate, kind, codec)
    path = tmp_path / f"ä {suffix}.{suffix}"
    path.write_bytes(content)
    sound = read_audio(path, rate)
    assert abs(len(sound) - rate) < 0.1 * rate
    # PyAV's own mono would be 0.354 here: 0.5 / sqrt(2).
    assert np.sqrt(2 * np.mean(sound[rate // 4 : rate // 2] ** 2)) == pytest.approx(0.25, abs=0.005)
    np.testing.assert_array_equal(read_audio(content, rate), sound)
    part = read_audio(path, rate, start_seconds=0.25, length_seconds=0.5)
    np.testing.assert_array_equal(part, sound[rate // 4 : rate // 4 + rate // 2])


def test_lossless_tracks_come_back_exactly():
    samples = np.round(noisy(0.5) * 32767) / 32768
    sound = read_audio(encoded(samples[None].astype(np.float32), 44_100, "mov", "pcm_s16le"), 44_100)
    np.testing.assert_allclose(sound, samples, atol=1e-6)


def test_films_give_their_sound_track():
    film = encoded(tone(44_100)[None], 44_100, "mp4", "aac", streams=2)
    assert abs(len(read_audio(film, 44_100)) - 44_100) < 4410


def test_containers_need_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"av is not installed.*a\.m4a.*pip install 'cmcr\[media\]'"):
        read_audio(tmp_path / "a.m4a", 8000)


def test_the_content_decides_and_not_the_name(tmp_path):
    (tmp_path / "a.mp3").write_bytes(written(tone(8000), 8000))
    assert len(read_audio(tmp_path / "a.mp3", 8000)) == 8000
    (tmp_path / "b.wav").write_bytes(encoded(tone(44_100)[None], 44_100, "mov", "pcm_s16le"))
    assert len(read_audio((tmp_path / "b.wav").as_uri(), 44_100)) == 44_100


def test_silence_is_a_sound():
    assert not read_audio(written(np.zeros(100, dtype=np.float32), 8000), 8000).any()
    assert read_audio({"array": np.zeros(1), "sampling_rate": 8000}, 8000).tolist() == [0]


def test_very_short_sounds():
    assert read_audio(written(tone(8000)[:1], 8000), 8000).tolist() == [0]
    assert len(read_audio({"array": np.ones(1), "sampling_rate": 8000}, 48_000)) == 6
    with pytest.raises(SampleError, match="1 samples at 48000 Hz are less than one at 8000 Hz"):
        read_audio({"array": np.ones(1), "sampling_rate": 48_000}, 8000)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_parts_equal_the_part_of_the_whole(kind):
    content = written(noisy(3), 44_100, kind)
    whole = read_audio(content, 44_100)
    middle = read_audio(content, 44_100, length_seconds=1)
    np.testing.assert_allclose(middle, window_of(whole, 44_100), atol=1e-6)
    late = read_audio(content, 44_100, start_seconds=2.5, length_seconds=9)
    np.testing.assert_allclose(late, whole[round(2.5 * 44_100) :], atol=1e-6)
    np.testing.assert_allclose(read_audio(content, 44_100, start_seconds=1), whole[44_100:], atol=1e-6)
    np.testing.assert_array_equal(read_audio(content, 44_100, length_seconds=99), whole)


def test_parts_of_arrays():
    ramp = {"array": np.arange(10, dtype=np.float32), "sampling_rate": 1}
    assert read_audio(ramp, 1, start_seconds=2, length_seconds=3).tolist() == [2, 3, 4]
    assert read_audio(ramp, 1, length_seconds=4).tolist() == [3, 4, 5, 6]
    with pytest.raises(SampleError, match=r"lasts 10\.00 s; a part from 10\.00 s on is not there"):
        read_audio(ramp, 1, start_seconds=10)
    for wrong in ({"start_seconds": -1}, {"start_seconds": float("nan")}, {"length_seconds": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            read_audio(ramp, 1, **wrong)


def test_a_part_of_a_long_file_takes_the_memory_of_the_part(tmp_path):
    with soundfile.SoundFile(tmp_path / "hour.flac", "w", 8000, 2) as file:
        for _ in range(60):
            file.write(np.zeros((8000 * 60, 2), dtype=np.int16))
    tracemalloc.start()
    part = read_audio(tmp_path / "hour.flac", 8000, length_seconds=10)
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
    for given_sound, message in (
        ({"array": tone(8000)}, "'sampling_rate' is missing"),
        ({"array": tone(8000), "sampling_rate": 0}, "a number of hertz of at least 1, got 0"),
        ({"array": np.zeros(5, dtype=np.int16), "sampling_rate": 8000}, "Divide 16-bit integers by 32768"),
        ({"array": stereo.T, "sampling_rate": 8000}, r"shape \(channels, n\), got \(8000, 2\): transpose it"),
        ({"array": [[0.0, 0.1], [0.2]], "sampling_rate": 8000}, r"must be of shape \(n,\) or \(channels, n\)"),
        ({"array": np.zeros(0), "sampling_rate": 8000}, "holds no samples"),
        ({"array": np.array([0.0, np.nan]), "sampling_rate": 8000}, "NaN or infinity"),
        ({"array": np.array([[np.inf, 0], [-np.inf, 0]]), "sampling_rate": 8000}, "NaN or infinity"),
        ({"array": np.array([1e300, 0.0]), "sampling_rate": 8000}, "NaN or infinity"),
    ):
        with pytest.raises(SampleError, match=message):
            read_audio(given_sound, 8000)
    for rate in (0.5, float("inf"), True, "8000"):
        with pytest.raises(SampleError, match="'sampling_rate' must be a number of hertz"):
            read_audio({"array": tone(8000), "sampling_rate": rate}, 8000)


def cut(content, share):
    return content[: int(len(content) * share)]


def with_data_size(content, size):
    at = content.index(b"data") + 4
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


LONG = noisy(3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the sound cannot be decoded"),
        (b"RIFF", "the sound cannot be decoded"),
        (b"not a sound at all, but words", "the sound cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "the sound cannot be decoded"),
        (written(LONG[:0], 8000), "holds no samples"),
        (written(np.array([0, np.nan], dtype=np.float32), 8000, subtype="FLOAT"), "holds NaN or infinity"),
        (written(np.array([0, np.inf], dtype=np.float32), 8000, subtype="FLOAT"), "holds NaN or infinity"),
        (written(np.array([0, 1e300]), 8000, subtype="DOUBLE"), "holds NaN or infinity"),
        (cut(written(LONG, 44_100), 0.5), r"cut short: the header promises 264600 bytes of samples, 132\d+ are there"),
        (with_data_size(written(LONG, 44_100), 1 << 30), "cut short: the header promises 1073741824 bytes"),
        (cut(written(LONG, 44_100, "OGG"), 0.6), "cut short: its last Ogg page is not the end of a stream"),
        (written(LONG, 44_100, "OGG")[:-3], "cut short: its last Ogg page|cannot be decoded"),
        (cut(written(LONG, 48_000, "OGG", "OPUS"), 0.6), "cut short: its last Ogg page"),
        (cut(written(LONG, 44_100, "FLAC"), 0.5), "cut short|the sound cannot be decoded"),
        (
            cut(written(LONG, 44_100, "MP3"), 0.5),
            r"cut short: the header promises 3\.00 s, only 1\.\d+ s could be decoded",
        ),
        (written(LONG, 44_100, "MP3")[:40], "the sound cannot be decoded"),
    ],
    ids=(
        "zero-bytes wav-head words png no-samples wav-nan wav-infinite wav-beyond-float32 wav-cut wav-lies vorbis-cut "
        "vorbis-last-page opus-cut flac-cut mp3-cut mp3-head"
    ).split(),
)
def test_broken_sounds(tmp_path, content, message):
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    with pytest.raises(SampleError, match=rf"x\.wav: .*({message})"):
        read_audio(path, 8000)
    with pytest.raises(SampleError, match=rf"the sound: .*({message})"):
        read_audio(content, 8000)


def test_streamed_wavs_promise_nothing():
    content = written(LONG, 44_100, subtype="PCM_16")
    whole = read_audio(content, 44_100)
    for size in (0xFFFFFFFF, 0x7FFFFFFF):  # what programs write into a pipe
        np.testing.assert_array_equal(read_audio(with_data_size(content, size), 44_100), whole)


def test_flac_streams_without_a_length():
    content = bytearray(written(LONG, 44_100, "FLAC"))
    content[21] &= 0xF0  # the 36 bits of the number of samples in STREAMINFO
    content[22:26] = bytes(4)
    with pytest.raises(SampleError, match="its header does not say its length"):
        read_audio(bytes(content), 44_100)


def test_tracks_that_do_not_say_their_length():
    content = encoded(tone(44_100)[None], 44_100, "adts", "aac")
    with pytest.raises(SampleError, match=r"does not say its length, so its middle is unknown\. Give start_seconds"):
        read_audio(content, 44_100, length_seconds=0.5)
    with pytest.raises(SampleError, match=r"lasts 1\.\d\d s; a part from 9\.00 s on is not there"):
        read_audio(content, 44_100, start_seconds=9)


@pytest.mark.parametrize(
    ("suffix", "share", "message"),
    [
        ("m4a", 0.6, r"cannot be decoded beyond \d\.\d\d s"),
        ("webm", 0.6, r"cut short: the header promises \d\.\d\d s, only \d\.\d\d s could be decoded"),
        ("mkv", 0.6, "cut short|cannot be decoded beyond"),
        ("mov", 0.6, "the sound cannot be decoded"),
        ("aac", 0.6, "cannot be decoded beyond"),
        ("mp4", 0.01, "the sound cannot be decoded"),
    ],
)
def test_broken_sound_tracks(suffix, share, message):
    kind, codec, rate = TRACKS[suffix]
    options = {"movflags": "+faststart"} if suffix == "m4a" else {}
    content = encoded(noisy(3, rate)[None], rate, kind, codec, **options)
    assert len(read_audio(content, rate)) >= 3 * rate
    with pytest.raises(SampleError, match=rf"the sound: .*({message})"):
        read_audio(cut(content, share), rate)


def test_films_without_a_sound_track():
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10, width=16, height=16, pix_fmt="yuv420p")
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), dtype=np.uint8))))
        container.mux(stream.encode(None))
    with pytest.raises(SampleError, match="the sound: holds no sound track"):
        read_audio(buffer.getvalue(), 8000)


def test_places_without_a_sound(tmp_path):
    (tmp_path / "folder.wav").mkdir()
    for source, message in (
        (tmp_path / "nothing.wav", r"nothing\.wav: no such sound"),
        (tmp_path / "folder.wav", "a folder, not a sound"),
        ("http://example.org/a.wav", "cmcr downloads nothing"),
        (np.zeros(5), "An array alone does not say its rate"),
    ):
        with pytest.raises(SampleError, match=message):
            read_audio(source, 8000)


def test_window_is_the_middle_or_padded_behind():
    assert window_of(np.arange(7, dtype=np.float32), 3).tolist() == [2, 3, 4]
    assert window_of(np.arange(2, dtype=np.float32), 4).tolist() == [0, 1, 0, 0]

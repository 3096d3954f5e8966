"""Sounds: every format and depth against the samples that were written, and what is refused."""

import signal
import struct
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sounds import NOISE, encoded, tone, written

from cmcr.data import audio
from cmcr.data.audio import SoundClip, read_audio, window_of
from cmcr.errors import ConfigError, MissingDependencyError, SampleError

TRACKS = {
    "m4a": ("ipod", "aac", 44_100),
    "mp4": ("mp4", "aac", 44_100),
    "mov": ("mov", "pcm_s16le", 44_100),
    "webm": ("webm", "libopus", 48_000),
    "mkv": ("matroska", "pcm_s16le", 44_100),
}


@pytest.mark.parametrize(
    ("kind", "subtype", "rate", "channels"),
    [
        ("WAV", None, 8000, 1),
        ("WAV", None, 192_000, 6),
        ("FLAC", None, 48_000, 2),
        ("OGG", None, 44_100, 2),
        ("OGG", "OPUS", 48_000, 2),
        ("MP3", None, 48_000, 2),
    ],
)
def test_sounds_of_any_rate_come_at_the_rate_asked_for(kind, subtype, rate, channels):
    channel = tone(rate)
    silent = [0 * channel] * (channels - 1)
    sound = read_audio(written(np.stack([channel, *silent], axis=1), rate, kind, subtype), 8000)
    assert (sound.dtype, len(sound)) == (np.float32, 8000)
    # The mean of the channels, of which one alone sounds.
    np.testing.assert_allclose(sound[500:7500], tone(8000)[500:7500] / channels, atol=0.02)


@given(hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-4, 4, width=32)))
def test_floating_point_wavs_come_back_exactly(samples):
    for subtype in ("FLOAT", "DOUBLE"):
        np.testing.assert_array_equal(read_audio(written(samples, 8000, subtype=subtype), 8000), samples)


@given(hnp.arrays(np.int16, st.tuples(st.integers(1, 50), st.integers(1, 3))))
def test_lossless_formats_come_back_as_the_mean_of_their_channels(samples):
    for kind, depth in (("WAV", 16), ("WAV", 24), ("WAV", 32), ("FLAC", 16), ("AIFF", 16)):
        sound = read_audio(written(samples, 8000, kind, f"PCM_{depth}"), 8000)
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
    part = read_audio(SoundClip(path, 0.25, 0.5), rate)
    np.testing.assert_array_equal(part, sound[rate // 4 : rate // 4 + rate // 2])


def test_lossless_tracks_of_films_come_back_exactly():
    samples = np.round(NOISE[None] * 32767).astype(np.float32) / 32768
    sound = read_audio(encoded(samples, 44_100, "mov", "pcm_s16le", film=True), 44_100)
    np.testing.assert_allclose(sound, samples[0], atol=1e-6)


def test_containers_need_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"a\.m4a.*cmcr\[media\]"):
        read_audio(tmp_path / "a.m4a", 8000)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_clips_equal_the_part_of_the_whole(tmp_path, kind):
    (tmp_path / "a").write_bytes(written(NOISE, 44_100, kind))
    whole = read_audio(tmp_path / "a", 44_100)
    for start, length in ((0, 1), (1, 1), (2.5, 9), (0, 99)):
        part = whole[round(start * 44_100) : round((start + length) * 44_100)]
        np.testing.assert_allclose(read_audio(SoundClip(tmp_path / "a", start, length), 44_100), part, atol=1e-6)
    with pytest.raises(SampleError, match=r"ends before 9\.00 s"):
        read_audio(SoundClip(tmp_path / "a", 9, 1), 44_100)
    for start, length in ((float("nan"), 1), (0, 0)):
        with pytest.raises(ConfigError, match="_seconds must be"):
            SoundClip("s.wav", start, length)


def test_a_part_of_a_long_file_takes_the_memory_of_the_part(tmp_path):
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 8000, 2) as file:
        for _ in range(10):
            file.write(np.zeros((8000 * 60, 2), dtype=np.int16))
    tracemalloc.start()
    part = read_audio(SoundClip(tmp_path / "long.flac", 300, 10), 8000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(part) == 80_000
    assert peak < 4e6  # the whole would be 38 MB


def test_sound_mappings():
    np.testing.assert_array_equal(read_audio({"array": tone(8000), "sampling_rate": 8000}, 8000), tone(8000))
    stereo = np.stack([tone(8000), -tone(8000)])
    np.testing.assert_array_equal(read_audio({"array": stereo, "sampling_rate": 8000}, 8000), np.zeros(8000))
    half = np.full((8, 9), 60_000, dtype=np.float16)  # sums beyond float16
    assert read_audio({"array": half, "sampling_rate": 8000}, 8000)[0] == 60_000
    assert read_audio({"array": np.zeros(1), "sampling_rate": 8000}, 8000).tolist() == [0]  # silence is a sound


@pytest.mark.parametrize(
    ("array", "rate", "message"),
    [
        (np.zeros(5, dtype=np.int16), 8000, "Divide 16-bit integers"),
        (np.zeros((9, 2)), 8000, "transpose"),
        ([[0.0, 0.1], [0.2]], 8000, "array"),
        (np.zeros(0), 8000, "no samples"),
        (np.array([[np.inf, 0], [-np.inf, 0]]), 8000, "NaN or infinity"),
        *((np.zeros(9), rate, "hertz") for rate in (0.5, True, "8000")),
    ],
)
def test_sound_mappings_that_cannot_be_used(array, rate, message):
    with pytest.raises(SampleError, match=message):
        read_audio({"array": array, "sampling_rate": rate}, 8000)
    with pytest.raises(SampleError, match="An array alone"):
        read_audio(array, 8000)


def with_data_size(content, size):
    at = content.index(b"data") + 4
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


def test_lengths_that_are_not_those_of_the_header():
    content = written(NOISE, 44_100, subtype="PCM_16")
    whole = read_audio(content, 44_100)
    for size in (0xFFFFFFFF, 0x7FFFFFFF):  # what programs write into a pipe
        np.testing.assert_array_equal(read_audio(with_data_size(content, size), 44_100), whole)
    with pytest.raises(SampleError, match="1073741824 bytes"):
        read_audio(with_data_size(content, 1 << 30), 44_100)


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "CAF"])
def test_files_without_compression_that_are_cut_short(kind):
    content = written(NOISE, 8000, kind, "PCM_16")
    assert len(read_audio(content, 8000)) == len(NOISE)
    for size in (*range(0, 120, 7), len(content) // 2, len(content) - 2):
        with pytest.raises(SampleError):
            read_audio(content[:size], 8000)


@pytest.mark.parametrize("kind", ["W64", "RF64", "VOC", "MAT5", "NIST", "IRCAM", "SVX", "PAF"])
def test_formats_that_nobody_means_are_not_opened(kind, monkeypatch):
    content = written(tone(8000), 8000, kind)
    monkeypatch.setattr(soundfile, "SoundFile", None)
    with pytest.raises(SampleError, match="not a format that is read"):
        read_audio(content, 8000)


def test_a_flac_that_does_not_say_its_length_is_refused_as_such():
    content = bytearray(written(NOISE, 44_100, "FLAC"))
    content[21] &= 0xF0  # 36 bits of the number of samples
    content[22:26] = bytes(4)
    with pytest.raises(SampleError, match="without a length"):
        read_audio(bytes(content), 44_100)


@pytest.mark.parametrize(
    ("rate", "samples", "kind"),
    [(1, 2000, "WAV"), (8000, 1801 * 8000, "FLAC"), (192_000, 86_400_001, "FLAC"), (96_000, (2 * 10**7, 9), "RAW")],
)
def test_long_sounds_are_refused_before_they_are_decoded(tmp_path, rate, samples, kind):
    """A kilobyte at 1 Hz would fill gigabytes at 48 kHz, and so would silence in flac."""
    content = written(np.zeros(4096, dtype=np.float32), rate, "WAV" if kind == "RAW" else kind)
    path = tmp_path / "long"
    frames, channels = samples if isinstance(samples, tuple) else (samples, 1)
    if kind == "FLAC":  # silence, as its header tells it
        content = content[:21] + bytes([content[21] & 0xF0 | frames >> 32]) + struct.pack(">I", frames) + content[26:]
        path.write_bytes(content)
    else:
        with soundfile.SoundFile(path, "w", rate, channels, "PCM_U8", format="WAV") as file:
            file.write(np.zeros((1, channels), dtype=np.int16))
        content = with_data_size(path.read_bytes()[:-channels], frames * channels)
        with path.open("r+b") as file:
            file.write(content)
            file.truncate(len(content) + frames * channels)  # of holes
    tracemalloc.start()
    with pytest.raises(SampleError, match="the limit is"):
        read_audio(path, 48_000)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    if kind == "FLAC":
        with pytest.raises(SampleError, match="the limit is"):
            read_audio({"array": np.broadcast_to(np.float32(0), frames), "sampling_rate": rate}, 48_000)


def test_tracks_that_do_not_say_how_long_they_are_end_at_the_limit(tmp_path, monkeypatch):
    content = encoded(NOISE[None], 48_000, "webm", "libopus")
    monkeypatch.setattr(audio, "MOST_SECONDS", 2)
    (tmp_path / "a.webm").write_bytes(content)
    with pytest.raises(SampleError, match=r"the limit is 2\.0 s"):
        read_audio(tmp_path / "a.webm", 8000)
    assert len(read_audio(SoundClip(tmp_path / "a.webm", 0.5, 2), 8000)) == 16_000
    with pytest.raises(SampleError, match=r"the limit is 2\.0 s"):
        read_audio(SoundClip(tmp_path / "a.webm", 0.5, 2.1), 8000)


def test_ctrl_c_while_bytes_are_decoded_is_obeyed(monkeypatch):
    class Interrupted(audio._Content):
        def readinto(self, *given):
            if not asked:
                asked.append(signal.raise_signal(signal.SIGINT))
            return super().readinto(*given)

    asked = []
    monkeypatch.setattr(audio, "_Content", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        read_audio(written(NOISE, 8000, "FLAC"), 8000)


def test_window_is_the_middle_or_padded_behind():
    assert window_of(np.arange(7, dtype=np.float32), 3).tolist() == [2, 3, 4]
    assert window_of(np.arange(2, dtype=np.float32), 4).tolist() == [0, 1, 0, 0]

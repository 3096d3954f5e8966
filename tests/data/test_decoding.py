"""Decoders: what they read, and what they say of what cannot be read."""

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from cmcr.data.audio import read_audio, window_of
from cmcr.data.images import read_image
from cmcr.data.point_clouds import read_point_cloud
from cmcr.errors import SampleError


def tone(rate, seconds=1.0, hertz=440.0):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def test_images_come_upright(tmp_path):
    picture = Image.new("L", (4, 2), 0)
    picture.putpixel((0, 0), 255)
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = read_image(tmp_path / "turned.png")
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == 255


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a picture"), (b"not a picture at all", "not a picture"), (None, "no such picture")],
)
def test_unreadable_images(tmp_path, content, message):
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SampleError, match=rf"x\.png: {message}"):
        read_image(path)


def test_a_pil_image_is_read_as_its_file_is(tmp_path):
    picture = Image.effect_noise((6, 4), 80)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(np.asarray(read_image(opened)), np.asarray(read_image(tmp_path / "a.png")))


def test_sixteen_bit_pictures_are_scaled_not_clipped(tmp_path):
    levels = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert np.asarray(read_image(tmp_path / "deep.png")).tolist() == [[0, 1, 128, 255]]


def test_truncated_images_are_refused(tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, format="PNG")
    (tmp_path / "half.png").write_bytes(buffer.getvalue()[:1000])
    with pytest.raises(SampleError, match=r"half\.png: the picture cannot be decoded"):
        read_image(tmp_path / "half.png")
    with (
        Image.open(tmp_path / "half.png") as opened,
        pytest.raises(SampleError, match=r"the picture: .*cannot be decoded"),
    ):
        read_image(opened)


def test_image_arrays_must_be_pictures():
    assert read_image(np.zeros((2, 3, 3), dtype=np.uint8)).size == (3, 2)
    for wrong in (np.zeros((2, 3)), np.zeros((2, 3, 5), dtype=np.uint8), np.zeros((0, 3), dtype=np.uint8)):
        with pytest.raises(SampleError, match="must be uint8 of shape"):
            read_image(wrong)
    with pytest.raises(SampleError, match="a path, a PIL image or a uint8 array, got int"):
        read_image(3)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_sounds_of_any_rate_come_at_the_rate_asked_for(tmp_path, suffix):
    soundfile.write(tmp_path / f"a.{suffix}", np.stack([tone(44_100), 0 * tone(44_100)], axis=1), 44_100)
    sound = read_audio(tmp_path / f"a.{suffix}", 8000)
    assert sound.dtype == np.float32
    assert len(sound) == 8000
    # The mean of the channels: half of the one that sounds.
    np.testing.assert_allclose(sound[500:7500], 0.5 * tone(8000)[500:7500], atol=0.02)


def test_sound_mappings():
    np.testing.assert_array_equal(read_audio({"array": tone(8000), "sampling_rate": 8000}, 8000), tone(8000))
    stereo = np.stack([tone(8000), -tone(8000)])
    np.testing.assert_array_equal(read_audio({"array": stereo, "sampling_rate": 8000}, 8000), np.zeros(8000))
    with pytest.raises(SampleError, match="'sampling_rate' is missing"):
        read_audio({"array": tone(8000)}, 8000)
    with pytest.raises(SampleError, match="a number of hertz of at least 1, got 0"):
        read_audio({"array": tone(8000), "sampling_rate": 0}, 8000)
    with pytest.raises(SampleError, match="Divide 16-bit integers by 32768"):
        read_audio({"array": np.zeros(5, dtype=np.int16), "sampling_rate": 8000}, 8000)
    for rate in (0.5, float("inf"), True, "8000"):
        with pytest.raises(SampleError, match="'sampling_rate' must be a number of hertz"):
            read_audio({"array": tone(8000), "sampling_rate": rate}, 8000)
    with pytest.raises(SampleError, match=r"shape \(channels, n\), got \(8000, 2\): transpose it"):
        read_audio({"array": stereo.T, "sampling_rate": 8000}, 8000)
    with pytest.raises(SampleError, match=r"must be of shape \(n,\) or \(channels, n\)"):
        read_audio({"array": [[0.0, 0.1], [0.2]], "sampling_rate": 8000}, 8000)
    with pytest.raises(SampleError, match="holds no samples"):
        read_audio({"array": np.zeros(0), "sampling_rate": 8000}, 8000)
    with pytest.raises(SampleError, match="NaN or infinity"):
        read_audio({"array": np.array([0.0, np.nan]), "sampling_rate": 8000}, 8000)


def test_unreadable_sounds(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"RIFF")
    with pytest.raises(SampleError, match=r"x\.wav: the sound cannot be decoded"):
        read_audio(tmp_path / "x.wav", 8000)
    with pytest.raises(SampleError, match=r"nothing\.wav: no such sound"):
        read_audio(tmp_path / "nothing.wav", 8000)
    with pytest.raises(SampleError, match="An array alone does not say its rate"):
        read_audio(np.zeros(5), 8000)


def test_window_is_the_middle_or_padded_behind():
    assert window_of(np.arange(7, dtype=np.float32), 3).tolist() == [2, 3, 4]
    assert window_of(np.arange(2, dtype=np.float32), 4).tolist() == [0, 1, 0, 0]


def test_point_clouds(tmp_path):
    cloud = np.random.default_rng(0).normal(size=(20, 6))
    np.save(tmp_path / "a.npy", cloud)
    read = read_point_cloud(tmp_path / "a.npy")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, cloud[:, :3].astype(np.float32))


def test_pickled_point_clouds_are_refused(tmp_path):
    np.save(tmp_path / "evil.npy", np.array({"xyz": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(SampleError, match=r"evil\.npy: not a plain array .* never opened"):
        read_point_cloud(tmp_path / "evil.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((20, 2)), r"expected numbers of shape \(p, 3\) or wider, got float64 \(20, 2\)"),
        (np.zeros((15, 3)), "at least 16 points, got 15"),
        (np.full((20, 3), np.inf), "NaN or infinity"),
    ],
)
def test_unusable_point_clouds(array, message):
    with pytest.raises(SampleError, match=message):
        read_point_cloud(array)


def test_unreadable_point_cloud_files(tmp_path):
    (tmp_path / "x.pcd").write_bytes(b"ply")
    (tmp_path / "x.npy").write_bytes(b"")
    np.savez(tmp_path / "archive.npz", a=np.zeros((20, 3)))
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    for name, message in (
        ("x.pcd", "expected a .npy file"),
        ("x.npy", "not a plain array"),
        ("none.npy", "no such"),
        ("archive.npy", "archive"),
    ):
        with pytest.raises(SampleError, match=message):
            read_point_cloud(tmp_path / name)
    with pytest.raises(SampleError, match="a path or an array"):
        read_point_cloud([1, 2, 3])

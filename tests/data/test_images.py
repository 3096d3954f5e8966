"""Pictures: every mode and orientation against numpy, every broken file against its message."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from cmcr.data.images import read_image, to_rgb
from cmcr.errors import SampleError

CORNER = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40

# The eight orientations of the EXIF standard as numpy says them: what is stored -> what is to be seen.
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.transpose(a), 2),
    8: np.rot90,
}


def saved(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def png(depth, colour_type, row, width=2):
    """A PNG of one row, written by hand, for what Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("orientation", TURNS)
def test_images_come_upright(tmp_path, orientation):
    picture = Image.fromarray(CORNER)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = read_image(tmp_path / "turned.png")
    np.testing.assert_array_equal(np.asarray(upright), TURNS[orientation](CORNER))
    # What was turned says so no more: reading it again changes nothing.
    np.testing.assert_array_equal(np.asarray(read_image(upright)), np.asarray(upright))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_orientations_that_do_not_exist_turn_nothing(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(np.asarray(read_image(saved(Image.fromarray(CORNER), exif=exif))), CORNER)


def test_a_pil_image_is_read_as_its_file_is(tmp_path):
    picture = Image.effect_noise((6, 4), 80)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(np.asarray(read_image(opened)), np.asarray(read_image(tmp_path / "a.png")))


def test_every_way_to_name_a_file(tmp_path):
    path = tmp_path / "drei Äpfel 🍎 #1%.png"
    Image.fromarray(CORNER).save(path)
    for source in (
        path,
        str(path),
        path.as_uri(),
        path.as_uri().replace("file://", "file://localhost"),
        path.read_bytes(),
    ):
        np.testing.assert_array_equal(np.asarray(read_image(source)), CORNER)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([3, 4]))))
def test_lossless_pictures_come_back_as_they_were(array):
    np.testing.assert_array_equal(np.asarray(read_image(array)), array)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        content = saved(Image.fromarray(array), kind, **options)
        np.testing.assert_array_equal(np.asarray(read_image(content).convert(Image.fromarray(array).mode)), array)


@given(hnp.arrays(np.uint8, (3, 4, 4)))
def test_transparency_lies_on_white(array):
    alpha = array[..., 3:].astype(float) / 255
    expected = alpha * array[..., :3] + (1 - alpha) * 255
    np.testing.assert_allclose(np.asarray(to_rgb(read_image(array))), expected, atol=1)


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("RGB", (9, 8, 7), (9, 8, 7)),
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (40, 255), (40, 40, 40)),
        ("La", (0, 0), (255, 255, 255)),
        ("RGBa", (0, 0, 0, 0), (255, 255, 255)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
        ("I", 65535, (255, 255, 255)),
        ("F", 0.5, (128, 128, 128)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, seen):
    picture = to_rgb(Image.new(mode, (2, 2), colour))
    assert picture.mode == "RGB"
    assert picture.getpixel((1, 1)) == seen


def test_palettes_keep_their_transparency():
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        rgb = to_rgb(read_image(saved(picture, kind, transparency=0)))
        assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 255)]


def test_one_colour_can_be_transparent_without_an_alpha_channel():
    picture = Image.new("RGB", (2, 1), (1, 2, 3))
    picture.putpixel((1, 0), (9, 9, 9))
    rgb = to_rgb(read_image(saved(picture, transparency=(1, 2, 3))))
    assert [rgb.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (9, 9, 9)]
    deep = Image.fromarray(np.array([[256, 512]], dtype=np.uint16))
    deep.info["transparency"] = 256
    assert np.asarray(to_rgb(deep))[0, :, 0].tolist() == [255, 2]


def test_inverted_cmyk_jpegs_of_adobe():
    content = saved(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=95)
    assert b"Adobe" in content
    np.testing.assert_allclose(to_rgb(read_image(content)).getpixel((8, 8)), (0, 255, 255), atol=3)


def test_one_bit_pictures():
    rgb = to_rgb(read_image(png(1, 0, b"\x40")))
    assert np.asarray(rgb)[0, :, 0].tolist() == [0, 255]


def test_sixteen_bit_pictures_are_scaled_not_clipped(tmp_path):
    levels = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    assert np.asarray(read_image(tmp_path / "deep.png")).tolist() == [[0, 1, 128, 255]]
    assert np.asarray(read_image(saved(Image.fromarray(levels.astype(np.int32)), "TIFF"))).tolist() == [
        [0, 1, 128, 255]
    ]
    assert np.asarray(to_rgb(read_image(png(16, 2, b"\x12\x34" * 6)))).tolist() == [[[0x12] * 3] * 2]
    assert to_rgb(read_image(png(16, 6, b"\0\0" * 8))).getpixel((0, 0)) == (255, 255, 255)


def test_floating_point_pictures_lie_in_zero_to_one():
    levels = np.array([[0.0, 0.25, 1.0]], dtype=np.float32)
    assert np.asarray(read_image(saved(Image.fromarray(levels), "TIFF"))).tolist() == [[0, 64, 255]]
    for wrong, message in (
        (levels * 255, r"floating-point greys must lie in \[0, 1\], got 0\.\.255"),
        (levels - 1, r"got -1\.\.0"),
        (levels * np.float32("nan"), "NaN or infinity"),
    ):
        with pytest.raises(SampleError, match=message):
            read_image(saved(Image.fromarray(wrong), "TIFF"))
    with pytest.raises(SampleError, match=r"32-bit greys are read in 0\.\.65535, got 0\.\.65536"):
        read_image(Image.fromarray(np.array([[0, 65536]], dtype=np.int32)))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.n_frames == 3
    assert to_rgb(read_image(content)).getpixel((4, 4)) == (255, 0, 0)


def test_large_pictures_are_fine_and_bombs_are_not(monkeypatch):
    content = saved(Image.new("1", (6000, 4000)))
    assert read_image(content).size == (6000, 4000)
    for limit in (20_000_000, 1000):  # where Pillow warns, and where it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(SampleError, match="the picture: too large to decode safely"):
            read_image(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(SampleError, match="too large to decode safely"):
                read_image(content)
        with pytest.raises(SampleError, match=rf"6000 x 4000 pixels, the limit is {limit}"):
            read_image(Image.new("1", (6000, 4000)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(content).size == (6000, 4000)


NOISE = Image.effect_noise((64, 64), 50)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a picture that Pillow can read"),
        (b"not a picture at all", "not a picture that Pillow can read"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not a picture that Pillow can read"),
        (saved(NOISE)[:1000], "the picture cannot be decoded"),
        (saved(NOISE, "JPEG")[:900], "the picture cannot be decoded"),
        (saved(NOISE.convert("RGB"), "WEBP", lossless=True)[:900], "the picture cannot be decoded|not a picture"),
        (saved(NOISE, "GIF")[:900], "the picture cannot be decoded"),
        (saved(NOISE, "TIFF")[:900], "the picture cannot be decoded|not a picture"),
        (saved(NOISE, "BMP")[:900], "the picture cannot be decoded"),
        (saved(NOISE).replace(b"IDAT", b"IDAX"), "not a picture"),
        (png(8, 0, b"\0", width=2), "the picture cannot be decoded"),
    ],
    ids="zero-bytes text wav png-cut jpeg-cut webp-cut gif-cut tiff-cut bmp-cut png-damaged png-short-rows".split(),
)
def test_broken_pictures(tmp_path, content, message):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(SampleError, match=rf"x\.jpg: ({message})"):
        read_image(path)
    with pytest.raises(SampleError, match=rf"the picture: ({message})"):
        read_image(content)


def test_a_damaged_pil_image_is_refused(tmp_path):
    (tmp_path / "half.png").write_bytes(saved(NOISE)[:1000])
    with (
        Image.open(tmp_path / "half.png") as opened,
        pytest.raises(SampleError, match=r"the picture: .*cannot be decoded"),
    ):
        read_image(opened)
    with pytest.raises(SampleError, match=r"holds no pixels \(0 x 3\)"):
        read_image(Image.new("L", (0, 3)))


def test_places_without_a_picture(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    for source, message in (
        (tmp_path / "nothing.png", r"nothing\.png: no such picture"),
        (tmp_path / "folder.jpg", r"folder\.jpg: a folder, not a picture"),
        ("", "a folder, not a picture|no such picture"),
        ("a\0b.png", "not a path of a picture|no such picture"),
        ("x" * 5000, "not a path of a picture|no such picture"),
        ("https://example.org/a.png", "cmcr downloads nothing; fetch the picture first"),
        ("file://elsewhere/a.png", "cmcr downloads nothing"),
        (3, "a path, a PIL image or a uint8 array, got int"),
        (None, "got NoneType"),
    ):
        with pytest.raises(SampleError, match=message):
            read_image(source)


def test_image_arrays_must_be_pictures():
    assert read_image(np.zeros((2, 3, 3), dtype=np.uint8)).size == (3, 2)
    for wrong in (np.zeros((2, 3)), np.zeros((2, 3, 5), dtype=np.uint8), np.zeros((0, 3), dtype=np.uint8)):
        with pytest.raises(SampleError, match="must be uint8 of shape"):
            read_image(wrong)

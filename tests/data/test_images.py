"""Pictures: every mode and orientation against numpy, and what is refused."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from cmcr.data.images import MOST_STRETCHED, read_image, to_rgb
from cmcr.errors import SampleError

CORNER = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
NOISE = Image.effect_noise((64, 64), 50).convert("RGB")

# The eight orientations of the EXIF standard in terms of numpy: from what is stored to what must be seen.
TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.transpose(a), 2),
    8: np.rot90,
    **dict.fromkeys((0, 9, 255), lambda a: a),  # which do not exist
}


def saved(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def first_row(picture):
    return np.asarray(picture)[0].tolist()


@pytest.mark.parametrize("orientation", TURNS)
def test_images_come_upright(tmp_path, orientation):
    picture = Image.fromarray(CORNER)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = read_image(tmp_path / "turned.png")
    np.testing.assert_array_equal(np.asarray(upright), TURNS[orientation](CORNER))
    # The orientation is gone from what was turned: reading it again changes nothing.
    np.testing.assert_array_equal(np.asarray(read_image(upright)), np.asarray(upright))
    with Image.open(tmp_path / "turned.png") as opened:
        np.testing.assert_array_equal(np.asarray(read_image(opened)), np.asarray(upright))


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
        ("1", 1, (255, 255, 255)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (40, 255), (40, 40, 40)),
        ("RGBa", (0, 0, 0, 0), (255, 255, 255)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, seen):
    picture = to_rgb(Image.new(mode, (2, 2), colour))
    assert (picture.mode, picture.getpixel((1, 1))) == ("RGB", seen)


def test_one_colour_can_be_transparent_without_an_alpha_channel():
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        assert first_row(to_rgb(read_image(saved(palette, kind, transparency=0)))) == [[255, 255, 255], [0, 0, 255]]
    rgb = Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], dtype=np.uint8))
    assert first_row(to_rgb(read_image(saved(rgb, transparency=(1, 2, 3))))) == [[255, 255, 255], [9, 9, 9]]


@pytest.mark.parametrize(("dtype", "kind"), [(np.uint16, "PNG"), (np.int32, "TIFF"), (np.float32, "TIFF")])
def test_greys_of_more_than_eight_bits_are_refused(dtype, kind):
    with pytest.raises(SampleError, match="8 bits"):
        read_image(saved(Image.fromarray(np.array([[0, 256]], dtype=dtype)), kind))


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_animations_give_their_first_frame(kind, options):
    red, *others = (Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue"))
    content = saved(red, kind, save_all=True, append_images=others, duration=50, **options)
    assert to_rgb(read_image(content)).getpixel((4, 4)) == (255, 0, 0)


def test_the_limit_of_pixels_is_that_of_pillow(monkeypatch):
    picture = Image.new("1", (60, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(SampleError, match="too large to decode safely"):
        read_image(picture)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(saved(picture)).size == (60, 40)


@pytest.mark.parametrize("source", [saved(Image.new("RGB", (1, 60_000))), np.zeros((1, 65, 3), dtype=np.uint8)])
def test_strips_are_refused_which_encoders_would_scale_by_their_shorter_side(source):
    with pytest.raises(SampleError, match="too narrow a strip"):
        read_image(source)
    assert read_image(np.zeros((1, MOST_STRETCHED, 3), dtype=np.uint8)).size == (64, 1)


def test_formats_that_pillow_decodes_in_python_have_fewer_pixels():
    assert read_image(b"P2\n2 2\n255\n" + b"7 " * 4).getpixel((1, 1)) == 7
    for head in (b"P2\n1001 1000\n255\n", b"P6\n1001 1000\n200\n"):
        with pytest.raises(SampleError, match="more than 1,000,000 pixels"):
            read_image(head + b"7 " * 9)


def test_a_jpeg_of_many_scans_is_refused(tmp_path):
    """Each takes as long as the whole picture, and a hundred bytes."""
    content = saved(NOISE, "JPEG", progressive=True, exif=thumbnail())
    assert read_image(content + content[:-2] * 9).size == (64, 64)  # a video behind it, or other pictures
    last = content.rindex(b"\xff\xda")
    for between in (b"", b"\xff\xff", b"lost"):  # what decoders pass over
        (tmp_path / "scans.jpg").write_bytes(content[:last] + (between + content[last:-2]) * 60 + content[-2:])
        with pytest.raises(SampleError, match="scans, the limit is 64"):
            read_image(tmp_path / "scans.jpg")


def thumbnail():
    exif = Image.Exif()
    exif[0x927C] = saved(NOISE, "JPEG", progressive=True) * 9
    return exif


def test_sources_that_are_no_pictures(tmp_path):
    (tmp_path / "cut.bmp").write_bytes(saved(NOISE, "BMP")[:900])
    with Image.open(tmp_path / "cut.bmp") as opened, pytest.raises(SampleError, match="cannot be decoded"):
        read_image(opened)
    for source, message in (
        (tmp_path / "nothing.png", r"nothing\.png: no such picture"),
        (tmp_path, "a folder"),
        ("a\0b.png", "not a path of a picture|no such picture"),
        ("x" * 5000, "not a path of a picture|no such picture"),
        ("https://example.org/a.png", "downloads nothing"),
        (3, "got int"),
        (Image.new("L", (0, 3)), r"no pixels \(0 x 3\)"),
        (np.zeros((2, 3)), "must be uint8"),
        (np.zeros((0, 3), dtype=np.uint8), "must be uint8"),
    ):
        with pytest.raises(SampleError, match=message):
            read_image(source)


def test_a_file_that_holds_another_format_than_pictures_have_is_not_opened(tmp_path, monkeypatch):
    """PostScript, which Pillow would hand to another program."""
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda *call, **options: started.append(call))
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    (tmp_path / "photo.jpg").write_bytes(content)
    for source in (tmp_path / "photo.jpg", content):
        with pytest.raises(SampleError, match="not a picture of the formats"):
            read_image(source)
    assert started == []

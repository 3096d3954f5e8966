"""Pictures: files, arrays and PIL images to an upright PIL image."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cmcr.data.paths import MOST_BYTES, file_of
from cmcr.data.videos import VideoFrame, read_frame
from cmcr.errors import SampleError

Picture = str | Path | bytes | Image.Image | NDArray[np.uint8] | VideoFrame

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF")
"""What is opened, whatever a file is called: Pillow knows more, and hands PostScript to another program."""

MOST_STRETCHED = 64
"""How often the shorter side of a picture may fit in the longer: encoders scale the shorter one to a size of theirs."""

_MOST_SCANS = 64  # of a progressive JPEG, each of which decodes all pixels again; encoders write about ten
_MOST_IN_PYTHON = 1_000_000  # pixels of the formats that Pillow decodes in Python: ppm as text, some bmp
_JPEG_MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
_TRUSTED = "Raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."


def read_image(source: Picture) -> Image.Image:
    """Decode one picture, turned upright by its EXIF orientation.

    Animations (gif, webp, apng) give their first frame, PIL images their current one. Colour profiles are ignored.
    Transparency, palettes and CMYK stay as they are: see `to_rgb`.

    Args:
        source: a path, the bytes of a file, a PIL image, a uint8 array `(H, W)`, `(H, W, 3)` or `(H, W, 4)`, or a
            `VideoFrame` (with the extra `media`).

    Raises:
        SampleError: no such file, a folder, not a picture, truncated, more pixels than `PIL.Image.MAX_IMAGE_PIXELS` (a
            small file can unpack to any size), a strip beyond `MOST_STRETCHED`, greys of more than 8 bits, or an array of
            another kind; of a `VideoFrame` as `read_frame`.
        MissingDependencyError: a `VideoFrame` without PyAV.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, VideoFrame):
        return _upright(read_frame(source), str(source))
    if not isinstance(source, str | os.PathLike | bytes | Image.Image):
        raise SampleError(f"a picture must be a path, a PIL image or a uint8 array, got {type(source).__name__}.")
    name = str(source) if isinstance(source, str | os.PathLike) else "the picture"
    try:
        if isinstance(source, Image.Image):
            return _upright(source, name)
        file = io.BytesIO(source) if isinstance(source, bytes) else file_of(source, "picture")
        with open_picture(file, name) as opened:
            return _upright(opened, name)
    except SampleError:  # a ValueError too, and clear already
        raise
    except UnidentifiedImageError as error:
        raise SampleError(f"{name}: not a picture of the formats that are read: {', '.join(FORMATS)}.") from error
    except Exception as error:  # Pillow's plugins raise whatever a damaged file leads them into
        raise SampleError(f"{name}: the picture cannot be decoded ({error}).") from error


def open_picture(file: Path | IO[bytes], name: str) -> Image.Image:
    """Open a picture whose pixels are decoded later; `name` is how messages call it.

    Raises:
        SampleError: more pixels than `PIL.Image.MAX_IMAGE_PIXELS` or than are decoded in Python, or a JPEG that decodes them
            again and again.
        PIL.UnidentifiedImageError: of no format that is read.
        Exception: of any kind, where its header is damaged.
    """
    Image.init()
    try:
        opened = Image.open(file, formats=[known for known in FORMATS if known in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SampleError(f"{name}: too large to decode safely ({error}). {_TRUSTED}") from error
    try:
        _refuse_many_pixels(opened.width, opened.height, name)
        if any(tile[0] in Image.DECODERS for tile in opened.tile) and opened.width * opened.height > _MOST_IN_PYTHON:
            raise SampleError(f"{name}: more than {_MOST_IN_PYTHON:,} pixels, as text or run by run. Save it as png.")
        if opened.info.get("progressive") and opened.fp:
            _refuse_scans(opened.fp, name)
    except SampleError:
        opened.close()
        raise
    return opened


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to RGB; transparent parts show white.

    The rule for half-transparent pixels is `alpha * colour + (1 - alpha) * white`, because pictures mostly lie on white
    pages. Pillow's own `convert("RGB")` would show the colours hidden under transparency instead.

    Args:
        image: as `read_image` gives it.
    """
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    opaque = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")


def _upright(picture: Image.Image, name: str) -> Image.Image:
    """Decode the pixels and turn them by the EXIF orientation, unless they are too many or too deep."""
    _check_size(picture.width, picture.height, name)
    if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):  # Pillow would clip them at 255
        raise SampleError(f"{name}: holds greys of more than 8 bits. Scale them to 0..255 and save it with 8 bits.")
    picture.load()
    return ImageOps.exif_transpose(picture)


def _check_size(width: int, height: int, name: str) -> None:
    """Refuse pictures that are empty, too large, or a strip."""
    _refuse_many_pixels(width, height, name)
    if width * height == 0:
        raise SampleError(f"{name}: holds no pixels ({width} x {height}).")
    if max(width, height) > MOST_STRETCHED * min(width, height):
        raise SampleError(f"{name}: {width} x {height} pixels are too narrow a strip, the limit is 1:{MOST_STRETCHED}.")


def _refuse_many_pixels(width: int, height: int, name: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        size = f"{width} x {height} pixels, the limit is {limit}"
        raise SampleError(f"{name}: too large to decode safely ({size}). {_TRUSTED}")


def _refuse_scans(file: IO[bytes], name: str) -> None:
    """Count the scans of a JPEG as its decoder finds them: behind each marker's segment the next marker is looked for."""
    position = file.tell()
    file.seek(0)
    content, at, scans = file.read(MOST_BYTES), 2, 0
    file.seek(position)
    while (marker := _JPEG_MARKER.search(content, at)) and marker[1] != b"\xd9":
        at = marker.end() + int.from_bytes(content[marker.end() : marker.end() + 2])
        scans += marker[1] == b"\xda"
    if scans > _MOST_SCANS:
        raise SampleError(f"{name}: a JPEG of {scans} scans, the limit is {_MOST_SCANS}. Save it again.")


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not shaped or array.size == 0:
        raise SampleError(
            f"a picture array must be uint8 of shape (H, W), (H, W, 3) or (H, W, 4), got {array.dtype} {array.shape}."
        )
    _check_size(array.shape[1], array.shape[0], "the picture")
    return Image.fromarray(array)

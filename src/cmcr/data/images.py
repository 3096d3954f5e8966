"""Pictures: files, arrays and PIL images to an upright PIL image."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cmcr.data.paths import file_of
from cmcr.data.videos import VideoFrame, read_frame
from cmcr.errors import SampleError

Picture = str | Path | bytes | Image.Image | NDArray[np.uint8] | VideoFrame

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF")
"""What is opened, whatever a file is called: Pillow knows more, and hands PostScript to another program."""

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
            small file can unpack to any size), greys of more than 8 bits, or an array of another kind; of a `VideoFrame` as
            `read_frame`.
        MissingDependencyError: a `VideoFrame` without PyAV.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, VideoFrame):
        return read_frame(source)
    if not isinstance(source, str | os.PathLike | bytes | Image.Image):
        raise SampleError(f"a picture must be a path, a PIL image or a uint8 array, got {type(source).__name__}.")
    name = str(source) if isinstance(source, str | os.PathLike) else "the picture"
    try:
        if isinstance(source, Image.Image):
            return _upright(source, name)
        file = io.BytesIO(source) if isinstance(source, bytes) else file_of(source, "picture")
        Image.init()
        with Image.open(file, formats=[known for known in FORMATS if known in Image.OPEN]) as opened:
            return _upright(opened, name)
    except SampleError:  # a ValueError too, and clear already
        raise
    except UnidentifiedImageError as error:
        raise SampleError(f"{name}: not a picture of the formats that are read: {', '.join(FORMATS)}.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SampleError(f"{name}: too large to decode safely ({error}). {_TRUSTED}") from error
    except Exception as error:  # Pillow's plugins raise whatever a damaged file leads them into
        raise SampleError(f"{name}: the picture cannot be decoded ({error}).") from error


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
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        size = f"{picture.width} x {picture.height} pixels, the limit is {limit}"
        raise SampleError(f"{name}: too large to decode safely ({size}). {_TRUSTED}")
    if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):  # Pillow would clip them at 255
        raise SampleError(f"{name}: holds greys of more than 8 bits. Scale them to 0..255 and save it with 8 bits.")
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    if 0 in upright.size:
        raise SampleError(f"{name}: holds no pixels ({upright.width} x {upright.height}).")
    return upright


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not shaped or array.size == 0:
        raise SampleError(
            f"a picture array must be uint8 of shape (H, W), (H, W, 3) or (H, W, 4), got {array.dtype} {array.shape}."
        )
    return Image.fromarray(array)

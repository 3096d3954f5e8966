"""Pictures: files, arrays and PIL images to an upright PIL image."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cmcr.errors import SampleError

Picture = str | Path | Image.Image | NDArray[np.uint8]


def read_image(source: Picture) -> Image.Image:
    """Decode one picture, turned upright by its EXIF orientation.

    Args:
        source: a path, a PIL image, or a uint8 array `(H, W)`, `(H, W, 3)` or `(H, W, 4)`.

    Raises:
        SampleError: no such file, not a picture, truncated, or an array of another kind.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _upright(source, "the picture")
    if not isinstance(source, str | os.PathLike):
        raise SampleError(f"a picture must be a path, a PIL image or a uint8 array, got {type(source).__name__}.")
    try:
        with Image.open(source) as opened:
            return _upright(opened, str(source))
    except FileNotFoundError as error:
        raise SampleError(f"{source}: no such picture.") from error
    except UnidentifiedImageError as error:
        raise SampleError(f"{source}: not a picture that Pillow can read.") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise SampleError(f"{source}: the picture cannot be decoded ({error}).") from error


def _upright(picture: Image.Image, name: str) -> Image.Image:
    """Decode the pixels, turn them by the EXIF orientation, and bring 16-bit greys to 8 bits (Pillow would clip them)."""
    try:
        picture.load()
        upright = ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SampleError(f"{name}: the picture cannot be decoded ({error}).") from error
    if upright.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    return upright


def _from_array(array: NDArray[np.uint8]) -> Image.Image:
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not shaped or array.size == 0:
        raise SampleError(
            f"a picture array must be uint8 of shape (H, W), (H, W, 3) or (H, W, 4), got {array.dtype} {array.shape}."
        )
    return Image.fromarray(array)

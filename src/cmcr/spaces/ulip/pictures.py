"""What ULIP's image tower sees of a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcr.data.images import to_rgb

# Pictures are normalised with ImageNet's statistics, not CLIP's: the published training does so (main.py of ULIP), and so
# did SLIP, whose frozen image tower it is.
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def pixels_of(picture: Image.Image, size: int) -> NDArray[np.float32]:
    """Resize the shorter side to `size`, crop the middle, normalise: SLIP's published evaluation.

    Bilinear, as torchvision resizes where nothing else is said; ULIP itself publishes no transform for inference.

    Args:
        picture: any mode; what is transparent lies on white, where the published code shows the colours hidden there.
        size: in pixels.

    Returns:
        `(3, size, size)` float32.
    """
    rgb = to_rgb(picture)
    width, height = rgb.size
    shorter = min(width, height)
    width, height = (max(size, int(size * side / shorter)) for side in (width, height))
    rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    cropped = np.asarray(rgb.crop((left, top, left + size, top + size)), dtype=np.float32)
    whitened: NDArray[np.float32] = (cropped / np.float32(255) - _MEAN) / _DEVIATION
    return np.ascontiguousarray(whitened.transpose(2, 0, 1))

"""Pictures to pixel values: what an image processor of transformers makes, in less of the processor's time.

Those processors turn the whole picture into an array and back before they resize it, and rescale and normalise every
pixel in float64 and float32. A byte can only become one of 256 numbers per channel, so here a table, filled by the image
processor itself, says which: the values are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_PROBES = ((61, 47), (47, 61), (640, 479))  # (width, height): lying, upright, large


@dataclass(frozen=True)
class PixelTable:
    """How to prepare a picture without its image processor.

    Attributes:
        size: as transformers writes it: `shortest_edge`, or `height` and `width`, in pixels.
        resample: Pillow's filter.
        crop: `(height, width)` around the centre, None for no crop.
        levels: `(3, 256)` float32: what a byte of each channel becomes.
    """

    size: Mapping[str, int]
    resample: Image.Resampling
    crop: tuple[int, int] | None
    levels: NDArray[np.float32]

    def prepare(self, picture: Image.Image) -> NDArray[np.float32]:
        """Resize, crop and normalise an RGB picture: `(3, H, W)` float32."""
        resized = picture.resize(self._resized(picture.width, picture.height), self.resample)
        pixels = np.asarray(resized)
        if self.crop is not None:
            pixels = _centre(pixels, *self.crop)
        prepared = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
        for channel in range(3):
            np.take(self.levels[channel], pixels[..., channel], out=prepared[channel], mode="clip")
        return prepared

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Give the `(width, height)` to resize to; a longer edge is rounded down, as transformers does."""
        if "height" in self.size:
            return self.size["width"], self.size["height"]
        edge = self.size["shortest_edge"]
        return (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)


def pixel_table(processor: Any) -> PixelTable | None:
    """Make the table of an image processor of transformers.

    Args:
        processor: such as `CLIPImageProcessorPil`.

    Returns:
        None where the processor does something that the table has no word for (no resizing, padding, other keys of
        `size`), or where the two disagree in a single bit on a few pictures: then the processor itself must be called.
    """
    size = {name: int(edge) for name, edge in dict(processor.size).items() if edge}
    if getattr(processor, "do_pad", False) or not processor.do_resize:
        return None
    if set(size) not in ({"shortest_edge"}, {"height", "width"}):
        return None
    crop = None
    if getattr(processor, "do_center_crop", False):
        crop = (int(processor.crop_size["height"]), int(processor.crop_size["width"]))
        smallest = min(size.values())
        if max(crop) > smallest:  # the rest would be padded
            return None
    table = PixelTable(size, Image.Resampling(processor.resample), crop, _levels(processor))
    return table if all(_agree(table, processor, shape) for shape in _PROBES) else None


def _levels(processor: Any) -> NDArray[np.float32]:
    """Ask the processor what each of the 256 bytes becomes in each channel."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    prepared = processor(
        images=Image.fromarray(ramp), return_tensors="np", do_resize=False, do_center_crop=False
    )["pixel_values"]  # fmt: skip
    return np.ascontiguousarray(np.asarray(prepared[0], dtype=np.float32).reshape(3, 256))


def _agree(table: PixelTable, processor: Any, shape: tuple[int, int]) -> bool:
    width, height = shape
    bytes_ = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(bytes_)
    expected = processor(images=picture, return_tensors="np")["pixel_values"][0]
    return np.array_equal(table.prepare(picture), expected)


def _centre(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]

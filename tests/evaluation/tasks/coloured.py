"""A world in which everything can be worked out by hand: pictures of coloured squares on grey, sounds that name a colour."""

import numpy as np
from given_spaces import GivenSpace, connected
from PIL import Image

from cmcr.data.images import read_image
from cmcr.errors import SampleError
from cmcr.evaluation.datasets.records import LocalizationRecord

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
QUARTERS = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]])
GREY = 128


class MeanColour(GivenSpace):
    """Embeds a picture as its mean colour."""

    def __init__(self):
        super().__init__("eyes", ("image", "text"), 3)

    def decode(self, item):
        return np.asarray(read_image(item).convert("RGB"), dtype=np.float32).mean(axis=(0, 1))


class PatchColour(MeanColour):
    """Embeds patches of 8 pixels too."""

    def patch_features(self, images, size=None, *, show_progress_bar=None):
        edge = size // 8
        small = [np.asarray(picture.resize((edge, edge), Image.Resampling.BOX), dtype=np.float32) for picture in images]
        rows = np.stack(small)
        return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


class NamedColour(GivenSpace):
    """Embeds a sound as the colour in its first three samples; silence has no direction and cannot be embedded."""

    def __init__(self):
        super().__init__("ears", ("audio", "text"), 3)

    def decode(self, item):
        if item == "broken":
            raise SampleError("no sound at all.")
        return np.asarray(item["array"][:3], dtype=np.float32)


def connection(eyes=None):
    """Connect both, without projectors: their rows are compared as they are."""
    return connected([eyes or MeanColour(), NamedColour()])


def picture(squares, width=64, height=64):
    """Draw squares of colours, by quarter, on grey."""
    pixels = np.full((height, width, 3), GREY, dtype=np.uint8)
    for quarter, colour in squares.items():
        left, top, right, bottom = (QUARTERS[quarter] * [width, height, width, height]).astype(int)
        pixels[top:bottom, left:right] = COLOURS[colour]
    return Image.fromarray(pixels)


def sound(colour):
    return {"array": np.array(COLOURS[colour], dtype=np.float32) / 255, "sampling_rate": 8000}


def record(images, sounds, boxes, name="coloured squares"):
    ids = [f"item {position}" for position in range(len(images))]
    return LocalizationRecord(
        name, images, sounds, ids, [np.asarray(drawn, dtype=float).reshape(-1, 4) for drawn in boxes]
    )

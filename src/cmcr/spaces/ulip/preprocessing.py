"""What ULIP's encoders see of a cloud or a picture; raise `PREPROCESSING` when any of it changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcr.data.point_clouds import read_point_cloud
from cmcr.errors import SampleError

UpAxis = Literal["x", "y", "z"]

PREPROCESSING = "1"
GREY = 0.4  # the published colour of points that have none

# Pictures are normalised with ImageNet's statistics, not CLIP's: the published training does so (main.py of ULIP), and so
# did SLIP, whose frozen image tower it is.
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)

# ULIP's clouds have y up. Rotations, never reflections: which coordinate becomes x, y, z, and its sign.
_TURNS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "x": ((1, 0, 2), (-1, 1, 1)),
    "y": ((0, 1, 2), (1, 1, 1)),
    "z": ((0, 2, 1), (1, 1, -1)),
}
UP_AXES = tuple(_TURNS)


def prepared_points(item: Any, *, channels: int, num_points: int, fewest: int, up_axis: UpAxis) -> NDArray[np.float32]:
    """Read one cloud and bring it into the published form: y up, centred on its mean, its largest radius 1.

    A cloud of more than `num_points` is thinned to points evenly spaced in its order. The published training thins by
    farthest point sampling from a random point; for 100 000 points that takes 0.8 s on one core, longer than the encoder,
    and the groups spread their centres by it in any case. A smaller cloud is used as it is.

    Args:
        item: what `read_point_cloud` takes; an array or `.npy` file may have red, green and blue in columns 4 to 6.
        channels: 3 (coordinates) or 6 (and colours in 0..1; grey 0.4 where there are none).
        num_points: the most points to use.
        fewest: the fewest that the encoder can group.
        up_axis: the axis of the cloud that points up.

    Returns:
        `(P, channels)` float32, P at most `num_points`.

    Raises:
        SampleError: unreadable, too few points, all in one place, or colours out of range.
    """
    xyz = read_point_cloud(item)
    if len(xyz) < fewest:
        raise SampleError(
            f"{_name(item)}: expected at least {fewest} points, which this encoder needs for its groups, got {len(xyz)}. "
            "Sample the shape more densely."
        )
    kept = evenly_spaced(len(xyz), num_points)
    unit = unit_cloud(y_up(xyz[kept], up_axis), _name(item))
    if channels == 3:
        return unit
    return np.concatenate([unit, _colours(item, len(xyz))[kept]], axis=1)


def evenly_spaced(count: int, most: int) -> NDArray[np.intp]:
    """Choose `min(count, most)` of `count` positions, evenly spaced, the first among them."""
    chosen = min(count, most)
    return np.arange(chosen, dtype=np.intp) * count // chosen


def y_up(xyz: NDArray[np.float32], up_axis: UpAxis) -> NDArray[np.float32]:
    """Turn `(P, 3)` by a right angle so that `up_axis` becomes y."""
    axes, signs = _TURNS[up_axis]
    return xyz[:, axes] * np.array(signs, dtype=np.float32)


def unit_cloud(xyz: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Centre `(P, 3)` on its mean and divide by the largest radius; in float64, so that far-away clouds lose nothing.

    Raises:
        SampleError: all points lie in one place.
    """
    centred = xyz.astype(np.float64) - xyz.mean(axis=0, dtype=np.float64)
    radius = np.sqrt((centred**2).sum(axis=1).max())
    if not (xyz != xyz[0]).any():
        raise SampleError(f"{name}: all {len(xyz)} points lie in one place, so it has no size to scale by.")
    return (centred / radius).astype(np.float32)


def _colours(item: Any, count: int) -> NDArray[np.float32]:
    """Give the colours `(P, 3)` of a cloud that `read_point_cloud` has accepted, grey where it has none."""
    table = item
    if not isinstance(item, np.ndarray):
        table = np.load(item, allow_pickle=False) if Path(item).suffix == ".npy" else np.empty((count, 3))
    if table.shape[1] == 3:
        return np.full((count, 3), GREY, dtype=np.float32)
    if table.shape[1] < 6:
        raise SampleError(
            f"{_name(item)}: expected 3 columns (x, y, z) or 6 (and red, green, blue), got {table.shape[1]}."
        )
    colours = table[:, 3:6].astype(np.float32)
    if not ((colours >= 0) & (colours <= 1)).all():  # false for NaN too
        raise SampleError(
            f"{_name(item)}: expected red, green and blue of 0 to 1 in columns 4 to 6, got {colours.min():g} to "
            f"{colours.max():g}. Divide colours of 0 to 255 by 255; leave out columns that are no colours."
        )
    return colours


def _name(item: Any) -> str:
    return str(item) if isinstance(item, str | os.PathLike) else "the point cloud"


def pixels_of(picture: Image.Image, size: int) -> NDArray[np.float32]:
    """Resize the shorter side to `size`, crop the middle, normalise: SLIP's published evaluation.

    Bilinear, as torchvision resizes where nothing else is said; ULIP itself publishes no transform for inference.

    Args:
        picture: any mode; transparency is dropped, as in the published code.
        size: in pixels.

    Returns:
        `(3, size, size)` float32.
    """
    rgb = picture.convert("RGB")
    width, height = rgb.size
    shorter = min(width, height)
    width, height = (max(size, int(size * side / shorter)) for side in (width, height))
    rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    cropped = np.asarray(rgb.crop((left, top, left + size, top + size)), dtype=np.float32)
    normalised: NDArray[np.float32] = (cropped / np.float32(255) - _MEAN) / _DEVIATION
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))

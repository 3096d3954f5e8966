"""What ULIP's encoders see of a cloud or a picture; raise `PREPROCESSING` when any of it changes."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcr.data.images import to_rgb
from cmcr.data.point_clouds import normalised, read_coloured_point_cloud, read_point_cloud, with_up_axis
from cmcr.errors import SampleError

UpAxis = Literal["x", "y", "z"]

PREPROCESSING = "2"
GREY = 0.4  # the published colour of points that have none

# Pictures are normalised with ImageNet's statistics, not CLIP's: the published training does so (main.py of ULIP), and so
# did SLIP, whose frozen image tower it is.
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def prepared_points(item: Any, *, channels: int, num_points: int, fewest: int, up_axis: UpAxis) -> NDArray[np.float32]:
    """Read one cloud and bring it into the published form: y up, centred on its mean, its largest radius 1.

    A cloud of more than `num_points` is thinned to points evenly spaced in its order. The published training thins by
    farthest point sampling from a random point; for 100 000 points that takes 0.8 s on one core, longer than the encoder,
    and the groups spread their centres by it in any case. A smaller cloud is used as it is.

    Args:
        item: what `read_coloured_point_cloud` takes.
        channels: 3 (coordinates) or 6 (and colours in 0..1; grey 0.4 where there are none).
        num_points: the most points to use.
        fewest: the fewest that the encoder can group.
        up_axis: the axis of the cloud that points up.

    Returns:
        `(P, channels)` float32, P at most `num_points`.

    Raises:
        SampleError: unreadable, too few points, all in one place, or colours out of range.
    """
    if channels == 6:
        coloured = read_coloured_point_cloud(item)
        xyz, colours = coloured.points, coloured.colours
    else:  # whatever stands beside the coordinates need not be colours
        xyz, colours = read_point_cloud(item), None
    if len(xyz) < fewest:
        raise SampleError(
            f"{_name(item)}: expected at least {fewest} points, which this encoder needs for its groups, got {len(xyz)}. "
            "Sample the shape more densely."
        )
    kept = evenly_spaced(len(xyz), num_points)
    unit = normalised(with_up_axis(xyz[kept], up_axis))
    if channels == 3:
        return unit
    grey = np.full_like(unit, GREY)
    return np.concatenate([unit, grey if colours is None else colours[kept]], axis=1)


def evenly_spaced(count: int, most: int) -> NDArray[np.intp]:
    """Choose `min(count, most)` of `count` positions, evenly spaced, the first among them."""
    chosen = min(count, most)
    return np.arange(chosen, dtype=np.intp) * count // chosen


def _name(item: Any) -> str:
    return str(item) if isinstance(item, str | os.PathLike) else "the point cloud"


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

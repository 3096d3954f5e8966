"""How a cloud is prepared and divided for an encoder; raise `PREPROCESSING` when any of it changes.

The groups of neighbouring points are those of PointBERT's `Group` (Yu et al., 2022), in numpy, without compiled CUDA code:
farthest point sampling gives the centres, each takes its nearest points.
Letters: `P` points, `G` groups, `S` points in a group, `C` channels of a point (3, or 6 with colours).
"""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cmcr.data.point_clouds import normalised, read_coloured_point_cloud, read_point_cloud, with_up_axis
from cmcr.errors import SampleError

UpAxis = Literal["x", "y", "z"]
Groups = tuple[NDArray[np.float32], NDArray[np.float32]]  # neighbourhoods and centres of a cloud

PREPROCESSING = "3"
GREY = 0.4  # the published colour of points that have none

_THINNING = 8  # every 8th point gives the first bound of a group's radius; the groups do not depend on it


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
        name = str(item) if isinstance(item, str | os.PathLike) else "the point cloud"
        raise SampleError(
            f"{name}: expected at least {fewest} points, which this encoder needs for its groups, got {len(xyz)}. "
            "Sample the shape more densely."
        )
    count = min(len(xyz), num_points)
    kept = np.arange(count, dtype=np.intp) * len(xyz) // count
    unit = normalised(with_up_axis(xyz[kept], up_axis))
    if channels == 3:
        return unit
    grey = np.full_like(unit, GREY)
    return np.concatenate([unit, grey if colours is None else colours[kept]], axis=1)


def group_points(points: NDArray[np.float32], num_group: int, group_size: int, core: float = 0.0) -> Groups:
    """Divide one cloud into overlapping groups.

    A group holds its points in the order of the cloud: PointBERT takes maxima over them, so their order means nothing.

    Args:
        points: `(P, C)`, coordinates first; any further channels are appended unchanged.
        num_group: groups G, at most P.
        group_size: points S in each group, at most P.
        core: see `farthest_points`.

    Returns:
        `(G, S, C)` float32 neighbourhoods, coordinates relative to the group's centre, colours as they were; and the
        centres, `(G, 3)` float32.
    """
    centers, distances = farthest_points(points[:, :3], num_group, core)
    members = np.stack([_nearest(row, group_size) for row in distances])
    neighborhoods = points[members]
    neighborhoods[..., :3] -= points[centers, None, :3]
    return neighborhoods, points[centers, :3]


def farthest_points(
    xyz: NDArray[np.float32], count: int, core: float = 0.0
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Choose points that lie far from each other: first point 0, then always the one farthest from those chosen.

    Of points that are exactly as far, the one that comes first is chosen. If fewer points are distinct than are asked for,
    all distances end at zero and point 0 is chosen again.

    Args:
        xyz: `(P, 3)` float32.
        count: how many to choose, G, 1 to P.
        core: squared distance from the origin up to which points are never chosen, but for point 0, as the compiled code
            passes over them that encoders such as Uni3D were trained with; 0 passes over none.

    Returns:
        `(G,)` their indices, and `(G, P)` the squared distances of all points from each of them, in float32: they are what
        the nearest neighbours are found by.
    """
    x, y, z = np.ascontiguousarray(xyz.T)  # contiguous, which is ten times as fast as columns of (P, 3)
    chosen = np.zeros(count, dtype=np.intp)
    distances = np.empty((count, len(xyz)), dtype=np.float32)
    nearest = np.full(len(xyz), np.inf, dtype=np.float32)
    if core:
        nearest[x**2 + y**2 + z**2 <= np.float32(core)] = -1  # below any distance, so argmax finds others
    for step in range(count):
        index = int(nearest.argmax()) if step else 0
        chosen[step] = index
        distances[step] = (x - x[index]) ** 2 + (y - y[index]) ** 2 + (z - z[index]) ** 2
        np.minimum(nearest, distances[step], out=nearest)
    return chosen, distances


def _nearest(squared: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Find the `count` points of smallest distance; of those exactly as far, the ones that come first."""
    # The count-th smallest of a part is never below that of the whole, so this keeps all that matter and drops most others.
    part = squared[:: max(1, min(_THINNING, len(squared) // count))]
    within = np.flatnonzero(squared <= np.partition(part, count - 1)[count - 1])
    distances = squared[within]
    farthest = np.partition(distances, count - 1)[count - 1]
    closer = within[distances < farthest]
    tied = within[distances == farthest]
    return np.sort(np.concatenate([closer, tied[: count - len(closer)]]))

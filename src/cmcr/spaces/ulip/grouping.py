"""The groups of neighbouring points that PointBERT reads: in numpy, without compiled CUDA code.

Published as `Group` of PointBERT (Yu et al., 2022): farthest point sampling gives the centres, each takes its nearest points.
Letters: `P` points, `G` groups, `S` points in a group, `C` channels of a point (3, or 6 with colours).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_THINNING = 8  # every 8th point gives the first bound of a group's radius; the groups do not depend on it


@dataclass(frozen=True)
class PointGroups:
    """One cloud as PointBERT reads it.

    Attributes:
        neighborhoods: `(G, S, C)` float32, coordinates relative to the group's centre, colours as they were.
        centers: `(G, 3)` float32.
    """

    neighborhoods: NDArray[np.float32]
    centers: NDArray[np.float32]


def group_points(points: NDArray[np.float32], num_group: int, group_size: int) -> PointGroups:
    """Divide one cloud into overlapping groups.

    A group holds its points in the order of the cloud: PointBERT takes maxima over them, so their order means nothing.

    Args:
        points: `(P, C)`, coordinates first; any further channels are appended unchanged.
        num_group: groups G, at most P.
        group_size: points S in each group, at most P.
    """
    centers, distances = farthest_points(points[:, :3], num_group)
    members = np.stack([_nearest(row, group_size) for row in distances])
    neighborhoods = points[members]
    neighborhoods[..., :3] -= points[centers, None, :3]
    return PointGroups(neighborhoods, points[centers, :3])


def farthest_points(xyz: NDArray[np.float32], count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Choose points that lie far from each other: first point 0, then always the one farthest from those chosen.

    Of points that are exactly as far, the one that comes first is chosen. If fewer points are distinct than are asked for,
    all distances end at zero and point 0 is chosen again.

    Args:
        xyz: `(P, 3)` float32.
        count: how many to choose, G, 1 to P.

    Returns:
        `(G,)` their indices, and `(G, P)` the squared distances of all points from each of them, in float32: they are what
        the nearest neighbours are found by.
    """
    # One contiguous row per coordinate and buffers that are reused; measured in benchmarks/point_groups.py.
    columns = np.ascontiguousarray(xyz.T)
    chosen = np.zeros(count, dtype=np.intp)
    distances = np.empty((count, len(xyz)), dtype=np.float32)
    nearest = np.full(len(xyz), np.inf, dtype=np.float32)
    scratch = np.empty_like(nearest)
    for step, squared in enumerate(distances):
        index = int(nearest.argmax()) if step else 0
        chosen[step] = index
        np.subtract(columns[0], columns[0, index], out=squared)
        np.multiply(squared, squared, out=squared)
        for column in columns[1:]:
            np.subtract(column, column[index], out=scratch)
            np.multiply(scratch, scratch, out=scratch)
            np.add(squared, scratch, out=squared)
        np.minimum(nearest, squared, out=nearest)
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

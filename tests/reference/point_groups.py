"""Farthest point sampling, nearest neighbours and groups, one point at a time in plain Python over float64."""

import numpy as np


def squared_distance(a, b):
    return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


def farthest_point_sampling(xyz, count, core=0.0):
    """Start at point 0; then the point whose nearest chosen point is farthest; of equals the first.

    With a core only points whose squared distance from the origin is above it are asked; where there is none, point 0.
    """
    outside = [i for i in range(len(xyz)) if not core or squared_distance(xyz[i], (0, 0, 0)) > core]
    chosen = [0]
    while len(chosen) < count:
        gaps = {i: min(squared_distance(xyz[i], xyz[c]) for c in chosen) for i in outside}
        chosen.append(max(gaps, key=lambda i: (gaps[i], -i), default=0))
    return chosen


def nearest_neighbours(xyz, center, count):
    """The `count` points nearest to a centre, as a set of indices; of equals the first."""
    ranked = sorted(range(len(xyz)), key=lambda i: (squared_distance(xyz[i], center), i))
    return sorted(ranked[:count])


def groups(points, num_group, group_size, core=0.0):
    """Neighbourhoods `(G, S, C)` with coordinates relative to their centre, and the centres `(G, 3)`."""
    points = np.asarray(points, dtype=np.float64)
    xyz = points[:, :3]
    centers = xyz[farthest_point_sampling(xyz, num_group, core)]
    neighborhoods = []
    for center in centers:
        members = points[nearest_neighbours(xyz, center, group_size)].copy()
        members[:, :3] -= center
        neighborhoods.append(members)
    return np.stack(neighborhoods), centers

"""Farthest point sampling, nearest neighbours and groups, one point at a time in plain Python over float64."""

import numpy as np


def squared_distance(a, b):
    return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


def farthest_point_sampling(xyz, count):
    """Start at point 0; then the point whose nearest chosen point is farthest; of equals the first."""
    chosen = [0]
    while len(chosen) < count:
        gaps = [min(squared_distance(point, xyz[c]) for c in chosen) for point in xyz]
        chosen.append(max(range(len(xyz)), key=lambda i: (gaps[i], -i)))
    return chosen


def nearest_neighbours(xyz, center, count):
    """The `count` points nearest to a centre, as a set of indices; of equals the first."""
    ranked = sorted(range(len(xyz)), key=lambda i: (squared_distance(xyz[i], center), i))
    return sorted(ranked[:count])


def groups(points, num_group, group_size):
    """Neighbourhoods `(G, S, C)` with coordinates relative to their centre, and the centres `(G, 3)`."""
    points = np.asarray(points, dtype=np.float64)
    xyz = points[:, :3]
    centers = xyz[farthest_point_sampling(xyz, num_group)]
    neighborhoods = []
    for center in centers:
        members = points[nearest_neighbours(xyz, center, group_size)].copy()
        members[:, :3] -= center
        neighborhoods.append(members)
    return np.stack(neighborhoods), centers

"""Point clouds of numbers: three handwritten digits extruded into thin solids and sampled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmcr.data.numbers.handwriting import handwriting
from cmcr.data.numbers.splits import Split, digits_of

POINTS_PER_DIGIT = 192
_CLUTTER_POINTS = 32
_DEPTH = 2.0  # thickness of the extrusion, in pixels of the handwriting


def sample_point_clouds(numbers: NDArray[np.int64], split: Split, rng: np.random.Generator) -> NDArray[np.float32]:
    """Sample one point cloud of each number.

    The ink of every digit is the density from which its points are drawn (uniform within a pixel and over the depth);
    each digit is stretched and shifted a little, the whole solid turned by up to 20 degrees about the vertical axis,
    every point jittered, and points of clutter fill the box around it.

    Args:
        numbers: `(n,)` integers in 0..999.
        split: whose handwriting samples to use.
        rng: source of all randomness.

    Returns:
        `(n, 608, 3)` float32: x to the right, y up, z towards the viewer; one unit is one pixel of the handwriting.
    """
    hand = handwriting(split)
    samples = hand.pick(digits_of(numbers), rng)
    n = len(numbers)
    cumulative = np.cumsum(hand.ink.reshape(-1, 64), axis=1)
    cumulative /= cumulative[:, -1:]
    parts: list[NDArray[np.floating]] = []
    for place in range(3):
        draw = rng.random((n, POINTS_PER_DIGIT), dtype=np.float32)
        pixel = (cumulative[samples[:, place]][:, None, :] < draw[:, :, None]).sum(axis=2).clip(max=63)
        within = rng.random((n, POINTS_PER_DIGIT, 3), dtype=np.float32)
        shift = rng.uniform(-1.0, 1.0, size=(n, 2)).astype(np.float32)
        scale = rng.uniform(0.85, 1.15, size=(n, 2)).astype(np.float32)
        x = (pixel % 8 + within[..., 0] - 4.0) * scale[:, :1] + shift[:, :1] + 10.0 * (place - 1)
        y = (4.0 - pixel // 8 - within[..., 1]) * scale[:, 1:] + shift[:, 1:]
        parts.append(np.stack([x, y, (within[..., 2] - 0.5) * _DEPTH], axis=2))
    box = np.array([34.0, 12.0, 4.0], dtype=np.float32)
    parts.append((rng.random((n, _CLUTTER_POINTS, 3), dtype=np.float32) - 0.5) * box)
    points = np.concatenate(parts, axis=1).astype(np.float32)
    points += 0.15 * rng.standard_normal(points.shape, dtype=np.float32)
    return _turn(points, np.asarray(rng.uniform(-np.pi / 9, np.pi / 9, size=n), dtype=np.float32))


def _turn(points: NDArray[np.float32], angle: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rotate clouds `(n, p, 3)` about the vertical (y) axis by `(n,)` radians."""
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([cos * x + sin * z, y, cos * z - sin * x], axis=2)

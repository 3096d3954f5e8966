"""The numbers that no training may see, and their pictures and point clouds.

Both are made of real handwritten digits (scikit-learn's `load_digits`), divided between training and test by sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import missing_dependency

Split = Literal["train", "test"]

ALL_NUMBERS: NDArray[np.int64] = np.arange(1000)
_TRAIN_SHARE = 0.7
HEIGHT, WIDTH = 12, 32
_CELL = 10  # horizontal pitch of the digits in pixels; a digit is 8 wide
_NOISE = 0.20  # standard deviation of the ground, in units of full ink
POINTS_PER_DIGIT = 192
_CLUTTER_POINTS = 32
_DEPTH = 2.0  # thickness of the extrusion, in pixels of the handwriting


def _unseen_numbers() -> NDArray[np.int64]:
    """Two hundred numbers, two of every pair of leading digits, that no training of any kind may see.

    With ``n = 100 a + 10 b + c`` the rule ``(a + 3 b + 7 c) mod 5 == 2`` takes exactly two of every ten neighbours, so
    each digit stays equally frequent in each place among the seen and among the unseen numbers.
    """
    hundreds, tens, units = ALL_NUMBERS // 100, ALL_NUMBERS // 10 % 10, ALL_NUMBERS % 10
    return ALL_NUMBERS[(hundreds + 3 * tens + 7 * units) % 5 == 2]


UNSEEN_NUMBERS: NDArray[np.int64] = _unseen_numbers()
SEEN_NUMBERS: NDArray[np.int64] = np.setdiff1d(ALL_NUMBERS, UNSEEN_NUMBERS)


def digits_of(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Split numbers into their decimal digits, hundreds first: `(n,)` in 0..999 -> `(n, 3)` in 0..9."""
    return np.stack([numbers // 100, numbers // 10 % 10, numbers % 10], axis=1)


@dataclass(frozen=True)
class Handwriting:
    """The samples of one split, sorted by digit.

    Attributes:
        ink: `(s, 8, 8)` float32 in [0, 1], 1 is full ink.
        first: `(10,)` row of the first sample of each digit.
        count: `(10,)` number of samples of each digit.
    """

    ink: NDArray[np.float32]
    first: NDArray[np.int64]
    count: NDArray[np.int64]

    def pick(self, digits: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Choose a random sample (a row of `ink`) for each entry of `digits`; same shape as `digits`."""
        return self.first[digits] + rng.integers(0, self.count[digits])


@lru_cache(maxsize=2)
def handwriting(split: Split) -> Handwriting:
    """Load the handwritten digits of one split.

    The first 70 % of each digit are for training, the last 30 % for the test. The data set comes in blocks by writer
    without naming them, so these are mostly different hands too; a writer at the cut may be on both sides.

    Raises:
        MissingDependencyError: scikit-learn, which ships the digits, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise missing_dependency("scikit-learn", extra="demo", purpose="its handwritten digits") from error
    data = load_digits()
    rows: list[NDArray[np.int64]] = []
    for digit in range(10):
        of_digit = np.flatnonzero(data.target == digit)
        cut = int(len(of_digit) * _TRAIN_SHARE)
        rows.append(of_digit[:cut] if split == "train" else of_digit[cut:])
    count = np.array([len(r) for r in rows])
    ink = (data.images[np.concatenate(rows)] / 16.0).astype(np.float32)
    return Handwriting(ink, np.concatenate([[0], np.cumsum(count)[:-1]]), count)


def draw_pictures(numbers: NDArray[np.int64], split: Split, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one picture of each number.

    Every digit is another handwriting sample of the split, shifted by up to a pixel sideways and two up or down, its
    ink between 60 and 100 %; Gaussian noise covers the whole picture.

    Args:
        numbers: `(n,)` integers in 0..999.
        split: whose handwriting samples to use.
        rng: source of all randomness.

    Returns:
        `(n, 12, 32)` uint8 grey levels, bright ink on a dark ground.
    """
    hand = handwriting(split)
    samples = hand.pick(digits_of(numbers), rng)
    n = len(numbers)
    canvas = rng.normal(0.12, _NOISE, size=(n, HEIGHT, WIDTH)).astype(np.float32)
    top = rng.integers(0, HEIGHT - 8 + 1, size=(n, 3))
    left = 2 + _CELL * np.arange(3) + rng.integers(-1, 2, size=(n, 3))
    strength = rng.uniform(0.6, 1.0, size=(n, 3)).astype(np.float32)
    row = np.arange(n)[:, None, None]
    for place in range(3):
        y = top[:, place, None, None] + np.arange(8)[None, :, None]
        x = left[:, place, None, None] + np.arange(8)[None, None, :]
        canvas[row, y, x] += hand.ink[samples[:, place]] * strength[:, place, None, None]
    return np.asarray(np.clip(canvas, 0.0, 1.0) * 255.0).astype(np.uint8)


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

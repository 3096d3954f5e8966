"""Pictures of numbers: three real handwritten digits side by side on a noisy ground."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmcr.data.numbers.handwriting import handwriting
from cmcr.data.numbers.splits import Split, digits_of

HEIGHT, WIDTH = 12, 32
_CELL = 10  # horizontal pitch of the digits in pixels; a digit is 8 wide
_NOISE = 0.20  # standard deviation of the ground, in units of full ink


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

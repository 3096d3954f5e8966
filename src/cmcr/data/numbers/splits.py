"""Which numbers, handwriting samples and voices belong to training, and which are kept for the test."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "test"]

ALL_NUMBERS: NDArray[np.int64] = np.arange(1000)


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

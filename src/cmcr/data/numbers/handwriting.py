"""Real handwritten digits (scikit-learn's `load_digits`), divided between training and test by sample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cmcr.data.numbers.splits import Split
from cmcr.errors import missing_dependency

_TRAIN_SHARE = 0.7


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

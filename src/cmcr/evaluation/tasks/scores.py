"""What a task measures, kept item by item where it can be, so that intervals and paired tests are the same for all tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcr.evaluation.intervals import PairedDifference, bootstrap_interval, bootstrap_statistic, paired_difference

Figure = dict[str, float]
"""One figure of a result: its value, low and high of its 95 % bootstrap interval, and the n items it was measured on."""


@dataclass(frozen=True, eq=False)
class PerItem:
    """The mean of one value per item `(n,)`, such as a hit or a reciprocal rank."""

    values: NDArray[np.float64]

    @property
    def value(self) -> float:
        """The figure."""
        return float(self.values.mean())

    def figure(self, seed: int) -> Figure:
        """Give the figure with its interval."""
        low, high = bootstrap_interval(self.values, seed=seed)
        return Figure(value=self.value, low=low, high=high, n=len(self.values))


@dataclass(frozen=True, eq=False)
class OfAll:
    """A figure of all items together, such as average precision.

    Attributes:
        of: indices of items, with repeats -> the figure.
        labels: `(n,)` binary labels; every resample has as many of each.
    """

    of: Callable[[NDArray[np.int64]], float]
    labels: NDArray[np.bool_]

    @property
    def value(self) -> float:
        """The figure."""
        return self.of(np.arange(len(self.labels)))

    def figure(self, seed: int) -> Figure:
        """Give the figure with its interval."""
        low, high = bootstrap_statistic(self.of, self.labels, seed=seed)
        return Figure(value=self.value, low=low, high=high, n=len(self.labels))


@dataclass(frozen=True, eq=False)
class MeanOfTwo:
    """The mean of the means of two sets of items, such as both directions where captions outnumber pictures.

    Attributes:
        first: `(n,)` values of the one.
        second: `(m,)` values of the other.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]

    @property
    def value(self) -> float:
        """The figure."""
        return float(self.first.mean() + self.second.mean()) / 2

    def figure(self, seed: int) -> Figure:
        """Give the figure; its interval takes the two sets as independent, though they share items."""
        halves = [PerItem(values).figure(seed) for values in (self.first, self.second)]
        below = math.hypot(*(half["value"] - half["low"] for half in halves)) / 2
        above = math.hypot(*(half["high"] - half["value"] for half in halves)) / 2
        return Figure(value=self.value, low=self.value - below, high=self.value + above, n=len(self.first))


Scores = Mapping[str, PerItem | OfAll | MeanOfTwo]
"""By key, such as `audio_to_image/R@1`."""


def compared(first: Scores, second: Scores, seed: int) -> dict[str, PairedDifference]:
    """Compare what two connections scored on the same items, where figures are means over items."""
    found = {}
    for key, score in first.items():
        other = second.get(key)
        if isinstance(score, PerItem) and isinstance(other, PerItem) and len(score.values) == len(other.values):
            found[key] = paired_difference(score.values, other.values, seed=seed)
    return found

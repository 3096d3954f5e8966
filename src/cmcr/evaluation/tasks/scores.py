"""What a task measures, kept item by item where it can be, so that intervals and paired tests are the same for all tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.evaluation.intervals import (
    Clusters,
    PairedDifference,
    Statistic,
    mean_interval,
    mean_of_two_interval,
    paired_difference,
    paired_mean_of_two,
    paired_statistic,
    statistic_interval,
)

Figure = dict[str, Any]
"""One figure of a result: its value, low and high of its 95 % interval (None where it is computed), and the n items."""


@dataclass(frozen=True, eq=False)
class PerItem:
    """The mean of one value per item `(n,)` in [0, 1], such as a hit or a reciprocal rank."""

    values: NDArray[np.float64]
    clusters: Clusters = None

    @property
    def value(self) -> float:
        """The figure."""
        return float(self.values.mean())

    def figure(self, seed: int) -> Figure:
        """Give the figure with its interval, which needs no seed."""
        low, high = mean_interval(self.values, self.clusters)
        return Figure(value=self.value, low=low, high=high, n=len(self.values))

    def minus(self, other: PerItem, seed: int) -> PairedDifference:
        """Compare with what another connection scored on the same items."""
        return paired_difference(self.values, other.values, self.clusters, seed=seed)


@dataclass(frozen=True, eq=False)
class OfAll:
    """A figure of all items together, such as average precision.

    Attributes:
        of: indices of items, with repeats -> the figure.
        labels: `(n,)` binary labels.
        clusters: of the items.
    """

    of: Statistic
    labels: NDArray[np.bool_]
    clusters: Clusters = None

    @property
    def value(self) -> float:
        """The figure."""
        return self.of(np.arange(len(self.labels)))

    def figure(self, seed: int) -> Figure:
        """Give the figure with its interval."""
        low, high = statistic_interval(self.of, self.labels, self.clusters, seed=seed)
        return Figure(value=self.value, low=low, high=high, n=len(self.labels))

    def minus(self, other: OfAll, seed: int) -> PairedDifference:
        """Compare with what another connection scored on the same items."""
        return paired_statistic(self.of, other.of, self.labels, self.clusters, seed=seed)


@dataclass(frozen=True, eq=False)
class MeanOfTwo:
    """The mean of the means of two sets of items, such as both directions where captions outnumber pictures.

    Attributes:
        first: of the one set.
        second: of the other; clusters of both are numbered alike.
    """

    first: PerItem
    second: PerItem

    @property
    def value(self) -> float:
        """The figure."""
        return (self.first.value + self.second.value) / 2

    def figure(self, seed: int) -> Figure:
        """Give the figure with its interval."""
        clusters = (self.first.clusters, self.second.clusters)
        low, high = mean_of_two_interval(self.first.values, self.second.values, clusters)
        return Figure(value=self.value, low=low, high=high, n=len(self.first.values))

    def minus(self, other: MeanOfTwo, seed: int) -> PairedDifference:
        """Compare with what another connection scored on the same items."""
        ours, theirs = ((one.first.values, one.second.values) for one in (self, other))
        return paired_mean_of_two(ours, theirs, (self.first.clusters, self.second.clusters))


@dataclass(frozen=True)
class Known:
    """A figure that is computed and not measured, such as what a random order reaches on average.

    Attributes:
        value: the figure.
        n: of the items that it is about.
    """

    value: float
    n: int

    def figure(self, seed: int) -> Figure:
        """Give the figure: it is exact and has no interval."""
        return Figure(value=self.value, low=None, high=None, n=self.n)


Score = PerItem | OfAll | MeanOfTwo | Known
Scores = Mapping[str, Score]
"""By key, such as `audio_to_image/R@1`."""


def compared(first: Scores, second: Scores, seed: int) -> dict[str, PairedDifference]:
    """Compare every figure of two connections on the same items."""
    found = {}
    for key, score in first.items():
        other = second.get(key)
        if isinstance(score, PerItem | OfAll | MeanOfTwo) and type(other) is type(score):
            found[key] = score.minus(other, seed)  # type: ignore[arg-type]
    return found


def told_by_another(key: str, figures: Mapping[str, Mapping[str, Figure]]) -> bool:
    """Find out whether a figure equals another by definition: with one answer a query, true recall is R@k, MRR is mAP."""
    twin = key.replace("true_recall@", "R@").replace("/MRR", "/mAP")
    return twin != key and all(measured.get(key) == measured.get(twin) for measured in figures.values())

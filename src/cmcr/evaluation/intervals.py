"""How certain a figure is, and whether one connection is better than another on the same items.

Report a figure with its 95 % interval. For "A is better than B" quote the paired difference, its interval, and the p of the
sign-flip test, which keeps its level at any number of items. None of this covers the seed of training: repeat the training
for that. Items that belong together (captions of one picture, frames of one video) are one cluster: they vary together, and
an interval that takes them for independent is too narrow.

Intervals are Wilson's, with the effective number of items in place of n (Korn and Graubard 1998): for hits of independent
items that is Wilson's own. Percentiles of a bootstrap, which are common, cover 18 % instead of 95 where hits are rare and
65 to 88 % for max-F1; `benchmarks/coverage.py` measures what these cover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

_DRAWN = 1 << 21  # numbers drawn at once: 16 MiB
_FEW = 10  # a mean of which less than so many items' worth is not 0 (or not 1) takes the interval of hits
_RESAMPLES = 1000

Statistic = Callable[[NDArray[np.int64]], float]
"""From items, `(n,)` indices with repeats, to a figure in [0, 1]."""

Clusters = NDArray[np.int64] | None
"""`(n,)` number of each item's cluster, 0, 1, ...; None where every item is one."""


class PairedDifference(NamedTuple):
    """How much better the first is than the second, on the same items.

    Attributes:
        difference: of the figures, first minus second.
        low: lower end of its 95 % interval.
        high: upper end.
        sign_flip_p: two-sided, from the sign-flip test; None for a figure that is not a mean over items.
    """

    difference: float
    low: float
    high: float
    sign_flip_p: float | None


def mean_interval(values: ArrayLike, clusters: Clusters = None) -> tuple[float, float]:
    """95 % interval of the mean of values in [0, 1], such as hits, reciprocal ranks or average precisions.

    With ``m`` the mean and ``v`` its variance over clusters, ``n' = m (1 - m) / v`` is how many independent hits would tell
    as much; Wilson's interval for ``m`` of ``n'``, with Student's t of clusters - 1. Where nothing varies, n' is the number
    of clusters: 0 of n gives [0, about 4 / n]. Where the values, or what they lack of 1, add up to less than ten, n' is
    at most n: so few say little about the spread, and a mean of values in [0, 1] varies most where they are hits.

    Args:
        values: `(n,)` in [0, 1], at least one.
        clusters: see `Clusters`.

    Returns:
        Lower and upper bound, in [0, 1].
    """
    given = np.asarray(values, dtype=np.float64)
    mean = float(given.mean())
    return wilson(mean, *_spread((given - mean) / len(given), clusters), items=len(given))


def mean_of_two_interval(
    first: NDArray[np.float64], second: NDArray[np.float64], clusters: tuple[Clusters, Clusters] = (None, None)
) -> tuple[float, float]:
    """95 % interval of the mean of two means, such as both directions of retrieval; as `mean_interval`.

    Args:
        first: `(n,)` in [0, 1].
        second: `(m,)` in [0, 1].
        clusters: of both, numbered alike: a picture and its captions are one cluster. None takes all items as independent.
    """
    halves = [(values - values.mean()) / (2 * len(values)) for values in (first, second)]
    joint = None if clusters[0] is None or clusters[1] is None else np.concatenate([clusters[0], clusters[1]])
    mean = float(first.mean() + second.mean()) / 2
    return wilson(mean, *_spread(np.concatenate(halves), joint), items=min(len(first), len(second)))


def statistic_interval(
    statistic: Statistic, labels: NDArray[np.bool_], clusters: Clusters = None, *, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a statistic of items with binary labels, such as AP or max-F1.

    A bootstrap gives the statistic's variance and its bias: max-F1 chooses its threshold on the items that it is measured
    on, in each resample again, so that by how much a resample is better than the items tells how much better the items are
    than those to come. The interval is Wilson's around the figure less its bias, and it is meant for what the method would
    reach on endless items; a small sample's max-F1 may lie above it.

    Args:
        statistic: see `Statistic`.
        labels: `(n,)`; without clusters every resample has as many of each, because AP depends on their share.
        clusters: see `Clusters`; whole clusters are drawn.
        seed: of the draws.

    Returns:
        Lower and upper bound, in [0, 1].
    """
    figure = statistic(np.arange(len(labels)))
    draws = np.array([statistic(drawn) for drawn in _resamples(labels, clusters, seed)])
    groups = _groups(labels, clusters)
    bound = float(np.clip(2 * figure - draws.mean(), 0.0, 1.0))
    return wilson(bound, _bootstrap_variance(draws, groups), groups, items=len(labels))


def wilson(mean: float, variance: float, clusters: int, *, items: int) -> tuple[float, float]:
    """Wilson's interval (1927) for a figure in [0, 1] of a given variance; see `mean_interval`."""
    if clusters < 2:
        return 0.0, 1.0
    effective = mean * (1 - mean) / variance if variance > 0 and 0 < mean < 1 else float(clusters)
    if items * min(mean, 1 - mean) < _FEW:
        effective = min(effective, items)
    t2 = float(student.ppf(0.975, clusters - 1)) ** 2
    centre = (mean + t2 / (2 * effective)) / (1 + t2 / effective)
    half = np.sqrt(t2 * (mean * (1 - mean) / effective + t2 / (4 * effective**2))) / (1 + t2 / effective)
    # Rounding must not put a bound past the figure itself.
    return float(max(0.0, min(centre - half, mean))), float(min(1.0, max(centre + half, mean)))


def paired_difference(
    first: ArrayLike, second: ArrayLike, clusters: Clusters = None, *, resamples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Compare the means of two connections over the same items.

    Interval: Student's t, after half a cluster in which only the first is right and half a cluster in which only the second
    is (Agresti and Min 2005): without them, two that differ nowhere in a hundred items would differ by 0 for certain.
    Sign-flip test (Fisher 1935): if the two were alike, each cluster's difference could as well have the other sign; p is
    the share of sign patterns whose mean is at least as far from 0 as the one observed. All patterns are tried where there
    are no more than `resamples`, else that many are drawn and the observed one counts as one more,
    ``(1 + b) / (1 + resamples)``, so that p is never 0.

    Args:
        first: `(n,)` values in [0, 1], such as hits or average precisions.
        second: `(n,)` of the same items.
        clusters: see `Clusters`.
        resamples: the most sign patterns.
        seed: of them.
    """
    gap = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    variance, groups = _spread((gap - gap.mean()) / len(gap), clusters)
    centre = gap.mean() * groups / (groups + 2)
    half = _t(groups) * np.sqrt(variance + 1 / (groups + 2) ** 2)
    summed = gap if clusters is None else np.bincount(clusters, gap).astype(np.float64)
    p = _sign_flip_p(summed, resamples, seed)
    return PairedDifference(float(gap.mean()), *_bounded(gap.mean(), centre - half, centre + half), p)


def paired_mean_of_two(
    first: tuple[NDArray[np.float64], NDArray[np.float64]],
    second: tuple[NDArray[np.float64], NDArray[np.float64]],
    clusters: tuple[Clusters, Clusters] = (None, None),
) -> PairedDifference:
    """Compare means of two means, as `paired_difference`; without a p."""
    gaps = [ours - theirs for ours, theirs in zip(first, second, strict=True)]
    joint = None if clusters[0] is None or clusters[1] is None else np.concatenate([clusters[0], clusters[1]])
    variance, groups = _spread(np.concatenate([(gap - gap.mean()) / (2 * len(gap)) for gap in gaps]), joint)
    difference = float(gaps[0].mean() + gaps[1].mean()) / 2
    fewest = min(map(len, gaps)) if joint is None else groups
    half = _t(groups) * np.sqrt(variance + 1 / (fewest + 2) ** 2)
    return PairedDifference(difference, *_bounded(difference, difference - half, difference + half), None)


def paired_statistic(
    first: Statistic, second: Statistic, labels: NDArray[np.bool_], clusters: Clusters = None, *, seed: int = 0
) -> PairedDifference:
    """Compare a statistic of two connections over the same items: a bootstrap of the difference, less its bias; without a p.

    Arguments as of `statistic_interval`, both statistics on the same draws.
    """
    every = np.arange(len(labels))
    difference = first(every) - second(every)
    draws = np.array([first(drawn) - second(drawn) for drawn in _resamples(labels, clusters, seed)])
    groups = _groups(labels, clusters)
    centre = 2 * difference - draws.mean()
    half = _t(groups) * np.sqrt(_bootstrap_variance(draws, groups))
    return PairedDifference(float(difference), *_bounded(difference, centre - half, centre + half), None)


def _bounded(difference: float, low: float, high: float) -> tuple[float, float]:
    """Keep an interval of a difference within [-1, 1] and around the difference."""
    return float(max(-1.0, min(low, difference))), float(min(1.0, max(high, difference)))


def _t(groups: int) -> float:
    return float(student.ppf(0.975, groups - 1)) if groups > 1 else np.inf


def _spread(parts: NDArray[np.float64], clusters: Clusters) -> tuple[float, int]:
    """Variance of a sum of parts `(n,)`, each item's part of a figure less what is expected of it, and how many clusters."""
    summed = parts if clusters is None else np.bincount(clusters, parts)
    count = len(summed)
    return (float(np.square(summed).sum()) * count / (count - 1) if count > 1 else 0.0), count


def _groups(labels: NDArray[np.bool_], clusters: Clusters) -> int:
    """How many independent draws tell of a statistic: of the rarer label, or of clusters."""
    return int(np.unique(labels, return_counts=True)[1].min()) if clusters is None else int(clusters.max()) + 1


def _bootstrap_variance(draws: NDArray[np.float64], groups: int) -> float:
    return (
        float(draws.var(ddof=1)) * groups / max(1, groups - 1)
    )  # a bootstrap's is (n - 1) / n of what it is meant for


def _resamples(labels: NDArray[np.bool_], clusters: Clusters, seed: int) -> Iterator[NDArray[np.int64]]:
    """Draw items with replacement: as many of each label, or whole clusters in which both labels occur."""
    rng = np.random.default_rng(seed)
    if clusters is None:
        groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        for _ in range(_RESAMPLES):
            yield np.concatenate([group[rng.integers(0, len(group), len(group))] for group in groups])
        return
    order = np.argsort(clusters, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(clusters))[:-1])
    done = 0
    while done < _RESAMPLES:
        drawn = np.concatenate([members[one] for one in rng.integers(0, len(members), len(members))])
        if labels[drawn].any():  # of a few clusters none may hold a positive, and then nothing is defined
            done += 1
            yield drawn


def _sign_flip_p(gap: NDArray[np.float64], most: int, seed: int) -> float:
    """Share of sign patterns of `(n,)` differences whose sum is at least as far from 0 as theirs.

    Not `scipy.stats.permutation_test`, which gives the same and takes ten times as long.
    """
    moved = gap[gap != 0]  # a difference of 0 has no sign to flip
    bar = abs(moved.sum()) - 1e-12 * np.abs(moved).sum()  # equal sums may round differently
    if len(moved) < 63 and 2 ** len(moved) <= most:
        flips = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
        return float((np.abs((2.0 * flips - 1.0) @ moved) >= bar).mean())
    rng = np.random.default_rng(seed)
    size = max(1, _DRAWN // len(moved))
    portions = (min(size, most - start) for start in range(0, most, size))
    signs = (2.0 * rng.integers(0, 2, (rows, len(moved)), dtype=np.int8) - 1.0 for rows in portions)
    reached = sum(int((np.abs(pattern @ moved) >= bar).sum()) for pattern in signs)
    return (1 + reached) / (1 + most)

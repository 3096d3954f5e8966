"""How often do 95 % intervals hold the truth? Simulated, beside the percentile bootstrap that is common.

    python benchmarks/coverage.py --samples 400 --out benchmarks/results/coverage.json    # some ten minutes of one core

Each row draws that many samples from a known population and counts the intervals that hold its figure; 95 % is the goal,
93 to 97 is within the error of 400 samples. The table stands in docs/evaluation.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmcr.evaluation.detection import average_precision, levels, max_f1
from cmcr.evaluation.intervals import mean_interval, paired_difference, statistic_interval
from tables import as_markdown, result_table, save

Rows = NDArray[np.float64]
Bounds = tuple[float, float]


class Case(NamedTuple):
    """A figure of a population."""

    name: str
    truth: float
    draw: Callable[[np.random.Generator], tuple[Rows, ...]]
    interval: Callable[..., Bounds]
    common: Callable[..., Bounds]


def percentiles(draws: Rows) -> Bounds:
    """The middle 95 % of a bootstrap."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def common_mean(values: Rows, *_: Rows) -> Bounds:
    """Percentile bootstrap of a mean, clusters ignored."""
    drawn = np.random.default_rng(0).integers(0, len(values), (500, len(values)))
    return percentiles(values[drawn].mean(axis=1))


def of_items(
    of: Callable[[NDArray[Any], NDArray[np.bool_]], float],
) -> tuple[Callable[..., Bounds], Callable[..., Bounds]]:
    """Intervals of a statistic of scores and labels: ours, and the stratified percentile bootstrap."""

    def ours(scores: Rows, labels: NDArray[np.bool_]) -> Bounds:
        found = levels(scores)  # once, and not in every resample
        return statistic_interval(lambda drawn: of(found[drawn], labels[drawn]), labels)

    def common(scores: Rows, labels: NDArray[np.bool_]) -> Bounds:
        rng, found = np.random.default_rng(0), levels(scores)
        groups = [np.flatnonzero(labels), np.flatnonzero(~labels)]
        draws = [np.concatenate([g[rng.integers(0, len(g), len(g))] for g in groups]) for _ in range(200)]
        return percentiles(np.array([of(found[drawn], labels[drawn]) for drawn in draws]))

    return ours, common


def means() -> Iterator[Case]:
    """Hits, reciprocal ranks, captions of pictures, differences."""
    for n, share in ((20, 0.01), (20, 0.3), (200, 0.002), (200, 0.05), (200, 0.5), (2000, 0.001)):
        yield Case(
            f"R@k of {share:g}, {n} queries",
            share,
            lambda rng, n=n, p=share: ((rng.random(n) < p).astype(float),),  # type: ignore[misc]
            mean_interval,
            common_mean,
        )
    for n, corpus in ((50, 1000), (1000, 1000), (200, 10)):
        yield Case(
            f"mAP at chance, {n} queries, {corpus} items",
            float((1 / np.arange(1, corpus + 1)).mean()),
            lambda rng, n=n, c=corpus: (1 / rng.integers(1, c + 1, n),),  # type: ignore[misc]
            mean_interval,
            common_mean,
        )
    five = np.repeat(np.arange(100), 5)
    yield Case(
        "R@k of 0.5, 100 pictures of 5 captions",
        0.5,
        lambda rng: ((rng.random(500) < np.repeat(rng.beta(1, 1, 100), 5)).astype(float), five.astype(float)),
        lambda hits, clusters: mean_interval(hits, clusters.astype(np.int64)),
        common_mean,
    )

    def two(rng: np.random.Generator) -> tuple[Rows, Rows]:
        both = rng.random(200) < 0.1
        return (both | (rng.random(200) < 0.01)).astype(float), both.astype(float)

    yield Case(
        "difference of 0.009 in R@k, 200 queries",
        0.009,
        two,
        lambda first, second: paired_difference(first, second, resamples=10)[1:3],
        lambda first, second: common_mean(first - second),
    )


def statistics() -> Iterator[Case]:
    """AP and max-F1 of normal scores whose means lie `apart`."""
    for name, of in (("AP", average_precision), ("max-F1", max_f1)):
        for n, share, apart in ((20, 0.5, 1.0), (100, 0.1, 1.0), (200, 0.5, 0.0), (200, 0.5, 2.0), (1000, 0.5, 1.0)):
            labels = np.arange(n) < n * share
            large = np.arange(1_000_000) < 1_000_000 * share
            truth = of(np.random.default_rng(0).normal(size=1_000_000) + apart * large, large)
            ours, common = of_items(of)
            yield Case(
                f"{name} of {truth:.2f}, {n} items, {labels.sum()} positive",
                truth,
                lambda rng, labels=labels, d=apart: (rng.normal(size=len(labels)) + d * labels, labels),  # type: ignore[misc]
                ours,
                common,
            )


COLUMNS = {"figure": "{}", "covered, %": "{:.0f}", "mean width": "{:.3f}", "percentile bootstrap covers, %": "{:.0f}"}


def covered(case: Case, samples: int) -> list[str | float]:
    """Count how often our interval, and the common one, holds the truth: a row of the table."""
    rng = np.random.default_rng(1)
    held, widths = np.zeros((samples, 2), dtype=bool), np.zeros(samples)
    for row in range(samples):
        given = case.draw(rng)
        for column, interval in enumerate((case.interval, case.common)):
            low, high = interval(*given)
            held[row, column] = low - 1e-12 <= case.truth <= high + 1e-12
            widths[row] = high - low if column == 0 else widths[row]
    ours, common = 100 * held.mean(axis=0)
    return [case.name, round(ours, 2), round(widths.mean(), 4), round(common, 2)]


def main() -> None:
    """Measure, print the table and save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=400, help="samples a row")
    parser.add_argument("--out", type=Path, help="JSON of the table")
    settings = parser.parse_args()
    rows = [covered(case, settings.samples) for case in (*means(), *statistics())]
    table = result_table(COLUMNS, rows)
    print(as_markdown(table))
    if settings.out:
        save(settings.out, settings, {"coverage": table})


if __name__ == "__main__":
    main()

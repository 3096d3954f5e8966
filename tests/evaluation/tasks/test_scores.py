"""Figures with their intervals, and the comparison of two connections item by item."""

import numpy as np
import pytest

from cmcr.evaluation.detection import average_precision
from cmcr.evaluation.intervals import (
    mean_interval,
    paired_difference,
    paired_mean_of_two,
    paired_statistic,
    statistic_interval,
)
from cmcr.evaluation.tasks.scores import Known, MeanOfTwo, OfAll, PerItem, compared


def test_every_kind_of_figure_has_its_interval(rng):
    values, clusters = rng.random(40), np.arange(40) // 2
    low, high = mean_interval(values, clusters)
    assert PerItem(values, clusters).figure(3) == {"value": values.mean(), "low": low, "high": high, "n": 40}
    labels = rng.random(40) < 0.3

    def precision(chosen):
        return average_precision(values[chosen], labels[chosen])

    low, high = statistic_interval(precision, labels, clusters, seed=3)
    expected = {"value": average_precision(values, labels), "low": low, "high": high, "n": 40}
    assert OfAll(precision, labels, clusters).figure(3) == pytest.approx(expected)
    assert Known(0.25, 40).figure(3) == {"value": 0.25, "low": None, "high": None, "n": 40}


def test_the_interval_of_a_mean_of_two_holds_its_level(rng):
    """Of 200 samples with a known mean, about 95 % of the intervals hold it."""
    held = 0
    for _ in range(200):
        first, second = ((rng.random(n) < share).astype(float) for n, share in ((60, 0.3), (120, 0.6)))
        figure = MeanOfTwo(PerItem(first), PerItem(second)).figure(0)
        held += figure["low"] <= (0.3 + 0.6) / 2 <= figure["high"]
    assert 182 <= held <= 198  # 190 expected, 3 standard deviations are 9


def test_every_figure_of_two_connections_is_compared(rng):
    first, second, labels = rng.random(25), rng.random(25), np.arange(25) < 9

    def scores(values):
        of = lambda chosen: average_precision(values[chosen], labels[chosen])  # noqa: E731
        half = MeanOfTwo(PerItem(values), PerItem(values[:9]))
        return {"a": PerItem(values), "mean": half, "all": OfAll(of, labels), "known": Known(0.5, 25)}

    ours, theirs = scores(first), scores(second)
    assert compared(ours, theirs, 6) == {
        "a": paired_difference(first, second, seed=6),
        "mean": paired_mean_of_two((first, first[:9]), (second, second[:9])),
        "all": paired_statistic(ours["all"].of, theirs["all"].of, labels, seed=6),
    }
    assert compared(ours, {"a": theirs["mean"]}, 6) == {}

"""Figures with their intervals, and the comparison of two connections item by item."""

import numpy as np
import pytest

from cmcr.evaluation.detection import average_precision
from cmcr.evaluation.intervals import bootstrap_interval, bootstrap_statistic, paired_difference
from cmcr.evaluation.tasks.scores import MeanOfTwo, OfAll, PerItem, compared


def test_a_figure_per_item_is_the_mean_with_the_bootstrap_interval_of_its_seed(rng):
    score = PerItem(rng.random(40))
    low, high = bootstrap_interval(score.values, seed=3)
    assert score.figure(3) == {"value": score.values.mean(), "low": low, "high": high, "n": 40}


def test_a_figure_of_all_is_drawn_with_as_many_of_each_label(rng):
    confidence, labels = rng.standard_normal(30), rng.random(30) < 0.3
    seen = set()

    def precision(chosen):
        seen.add(labels[chosen].sum())
        return average_precision(confidence[chosen], labels[chosen])

    figure = OfAll(precision, labels).figure(3)
    assert seen == {labels.sum()}
    low, high = bootstrap_statistic(precision, labels, seed=3)
    expected = {"value": average_precision(confidence, labels), "low": low, "high": high, "n": 30}
    assert figure == pytest.approx(expected)


@pytest.mark.parametrize("values", [np.zeros(7), np.ones(7)])
def test_intervals_of_what_never_varies_are_points(values):
    figure = MeanOfTwo(values, values[:3]).figure(0)
    assert figure["low"] == figure["value"] == figure["high"] == values[0]


def test_the_interval_of_a_mean_of_two_holds_its_level(rng):
    """Of 200 samples with a known mean, about 95 % of the intervals hold it."""
    held = 0
    for _ in range(200):
        figure = MeanOfTwo((rng.random(60) < 0.3).astype(float), (rng.random(120) < 0.6).astype(float)).figure(0)
        held += figure["low"] <= (0.3 + 0.6) / 2 <= figure["high"]
    assert 182 <= held <= 198  # 190 expected, 3 standard deviations are 9


def test_connections_are_compared_where_figures_are_means_over_the_same_items(rng):
    first, second = rng.random(25), rng.random(25)
    of_all, mean = OfAll(lambda chosen: 1.0, np.arange(4) < 2), MeanOfTwo(first, second)
    ours = {"a": PerItem(first), "b": PerItem(first), "c": PerItem(first), "mean": mean, "all": of_all}
    theirs = {"a": PerItem(second), "b": PerItem(second[:-1]), "mean": mean, "all": of_all}
    assert compared(ours, theirs, 6) == {"a": paired_difference(first, second, seed=6)}

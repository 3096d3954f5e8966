"""Figures with their intervals, and the comparison of two connections item by item."""

import json

import numpy as np
import pytest

from cmcr.evaluation.detection import average_precision
from cmcr.evaluation.intervals import bootstrap_interval, bootstrap_statistic, paired_difference
from cmcr.evaluation.tasks.scores import MeanOfTwo, OfAll, PerItem, compared, figures


def test_a_figure_per_item_is_the_mean_with_its_bootstrap_interval(rng):
    values = rng.random(40)
    low, high = bootstrap_interval(values, seed=3)
    assert PerItem(values).figure(3) == {"value": pytest.approx(values.mean()), "low": low, "high": high, "n": 40}
    assert PerItem(np.ones(5)).figure(0) == {"value": 1, "low": 1, "high": 1, "n": 5}


def test_a_figure_of_all_is_drawn_with_as_many_of_each_label(rng):
    confidence, labels = rng.standard_normal(30), rng.random(30) < 0.3
    seen = []

    def precision(chosen):
        seen.append(labels[chosen].sum())
        return average_precision(confidence[chosen], labels[chosen])

    figure = OfAll(precision, labels).figure(3)
    assert set(seen) == {labels.sum()}
    low, high = bootstrap_statistic(precision, 30, strata=labels, seed=3)
    expected = {"value": average_precision(confidence, labels), "low": low, "high": high, "n": 30}
    assert figure == pytest.approx(expected)
    assert figure["low"] < figure["value"] < figure["high"]


def test_a_mean_of_two_adds_independent_errors(rng):
    first, second = rng.random(20), rng.random(100) ** 2
    figure = MeanOfTwo(first, second).figure(1)
    assert figure["value"] == pytest.approx((first.mean() + second.mean()) / 2)
    (low, high), (other_low, other_high) = bootstrap_interval(first, seed=1), bootstrap_interval(second, seed=1)
    below = np.sqrt((first.mean() - low) ** 2 + (second.mean() - other_low) ** 2) / 2
    above = np.sqrt((high - first.mean()) ** 2 + (other_high - second.mean()) ** 2) / 2
    assert figure["low"] == pytest.approx(figure["value"] - below)
    assert figure["high"] == pytest.approx(figure["value"] + above)
    assert figure["low"] < figure["value"] < figure["high"]
    assert figure["n"] == 20


@pytest.mark.parametrize("values", [np.zeros(7), np.ones(7)])
def test_intervals_of_what_never_varies_are_points(values):
    figure = MeanOfTwo(values, values[:3]).figure(0)
    assert figure["low"] == figure["value"] == figure["high"] == values[0]


def test_the_interval_of_a_mean_of_two_covers_as_it_says(rng):
    """Of 200 samples with a known mean, about 95 % of the intervals hold it."""
    truth = (0.3 + 0.6) / 2
    held = 0
    for _ in range(200):
        figure = MeanOfTwo((rng.random(60) < 0.3).astype(float), (rng.random(120) < 0.6).astype(float)).figure(0)
        held += figure["low"] <= truth <= figure["high"]
    assert 182 <= held <= 198  # 190 expected, 3 standard deviations are 9


def test_figures_are_taken_by_key_and_depend_on_the_seed_alone(rng):
    scores = {"a/R@1": PerItem(rng.random(30)), "mean/R@1": MeanOfTwo(rng.random(30), rng.random(50))}
    found = figures(scores, 4)
    assert found == {key: score.figure(4) for key, score in scores.items()} == figures(scores, 4)
    assert found != figures(scores, 5)
    assert json.loads(json.dumps(found)) == found


def test_connections_are_compared_where_figures_are_means_over_the_same_items(rng):
    first, second = rng.random(25), rng.random(25)
    labels = np.arange(4) < 2
    ours = {
        "a/R@1": PerItem(first),
        "b/R@1": PerItem(first),
        "only/R@1": PerItem(first),
        "mean/R@1": MeanOfTwo(first, second),
        "all/AP": OfAll(lambda chosen: 1.0, labels),
    }
    theirs = {
        "a/R@1": PerItem(second),
        "b/R@1": PerItem(second[:-1]),
        "mean/R@1": MeanOfTwo(second, first),
        "all/AP": OfAll(lambda chosen: 0.5, labels),
    }
    found = compared(ours, theirs, 6)
    assert found == {"a/R@1": paired_difference(first, second, seed=6)}
    assert found["a/R@1"].difference == pytest.approx((first - second).mean())
    assert compared(theirs, ours, 6)["a/R@1"].difference == pytest.approx((second - first).mean())

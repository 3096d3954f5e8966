"""Intervals and paired tests against closed forms, scipy, and what they promise: simulations of their coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

import cmcr.evaluation.intervals as intervals
from cmcr.evaluation.detection import average_precision, levels, max_f1
from cmcr.evaluation.intervals import (
    mean_interval,
    mean_of_two_interval,
    paired_difference,
    paired_mean_of_two,
    paired_statistic,
    statistic_interval,
)


@pytest.mark.parametrize("share", [0.0, 0.003, 0.3, 0.997, 1.0])
def test_of_many_hits_the_interval_is_wilsons(share):
    hits = np.arange(1000) < 1000 * share
    theirs = binomtest(int(hits.sum()), 1000).proportion_ci(method="wilson")
    assert mean_interval(hits) == pytest.approx((theirs.low, theirs.high), abs=2e-4)


def test_the_interval_of_few_items_is_never_a_point():
    assert mean_interval(np.zeros(20)) == pytest.approx((0.0, 0.18), abs=0.01)
    assert mean_interval(np.ones(20)) == pytest.approx((0.82, 1.0), abs=0.01)
    assert mean_interval([0.5]) == (0.0, 1.0)
    assert mean_interval(np.full(20, 0.001))[1] > 0.1  # all alike, and yet of 20 items only


def test_copies_of_items_in_one_cluster_tell_nothing_new(rng):
    values, five = rng.random(40), np.repeat(np.arange(40), 5)
    assert mean_interval(np.repeat(values, 5), five) == pytest.approx(mean_interval(values), abs=1e-12)
    low, high = mean_interval(np.repeat(values, 5))
    assert high - low < 0.5 * np.subtract(*mean_interval(values)[::-1])
    both = mean_of_two_interval(values, np.repeat(values, 5), (np.arange(40), five))
    assert both == pytest.approx(mean_interval(values), abs=1e-12)
    gap = values * rng.random(40)
    many = paired_difference(np.repeat(values, 5), np.repeat(gap, 5), five)
    assert many.sign_flip_p == paired_difference(values, gap).sign_flip_p
    assert many[:3] == pytest.approx(paired_difference(values, gap)[:3], abs=2e-3)


def covered(draw, truth, interval, repeats):
    """Share of samples whose interval holds the truth."""
    bounds = [interval(*draw()) for _ in range(repeats)]
    return np.mean([low - 1e-12 <= truth <= high + 1e-12 for low, high in bounds])


@pytest.mark.parametrize(("n", "share"), [(20, 0.05), (200, 0.01), (200, 0.5), (50, 0.95)])
def test_intervals_of_hits_cover(rng, n, share):
    assert covered(lambda: [rng.random(n) < share], share, mean_interval, 600) > 0.92


@pytest.mark.parametrize("corpus", [5, 1000])
def test_intervals_of_reciprocal_ranks_cover(rng, corpus):
    """Ranks drawn at random: in a corpus of 1000 a few large values make the mean."""
    truth = (1 / np.arange(1, corpus + 1)).mean()
    assert covered(lambda: [1 / rng.integers(1, corpus + 1, 100)], truth, mean_interval, 600) > 0.92


def test_intervals_of_clusters_cover_and_those_that_ignore_them_do_not(rng):
    five = np.repeat(np.arange(60), 5)

    def draw():
        chances = np.repeat(rng.beta(0.5, 0.5, 60), 5)  # pictures differ, captions of one picture do not
        return rng.random(300) < chances, five

    assert covered(draw, 0.5, mean_interval, 600) > 0.92
    assert covered(draw, 0.5, lambda hits, clusters: mean_interval(hits), 600) < 0.8


def of_endless_items(statistic, apart):
    rng, labels = np.random.default_rng(0), np.arange(100_000) < 50_000
    return statistic(rng.normal(size=100_000) + apart * labels, labels)


@pytest.mark.parametrize(
    ("statistic", "n", "apart"), [(average_precision, 40, 2.0), (max_f1, 40, 0.5), (max_f1, 200, 1.0)]
)
def test_intervals_of_ap_and_max_f1_cover(rng, monkeypatch, statistic, n, apart):
    monkeypatch.setattr(intervals, "_RESAMPLES", 60)
    labels = np.arange(n) < n // 2

    def interval(scores):
        found = levels(scores)
        return statistic_interval(lambda drawn: statistic(found[drawn], labels[drawn]), labels)

    truth = of_endless_items(statistic, apart)
    assert covered(lambda: [rng.normal(size=n) + apart * labels], truth, interval, 100) > 0.88


def test_a_perfect_and_a_constant_score_have_intervals_too():
    labels = np.arange(40) < 20
    for scores, value in ((labels.astype(float), 1.0), (np.zeros(40), 0.5)):
        low, high = statistic_interval(lambda drawn, s=scores: average_precision(s[drawn], labels[drawn]), labels)
        assert 0 < low < value <= high <= 1


def test_draws_keep_the_share_of_labels_or_whole_clusters(rng, monkeypatch):
    monkeypatch.setattr(intervals, "_RESAMPLES", 200)
    labels, seen = np.arange(30) < 2, []
    statistic_interval(lambda drawn: float(seen.append(labels[drawn].sum()) or 0.5), labels)
    assert set(seen) == {2}
    pairs, whole = np.tile(np.arange(15), 2), []

    def keeps_pairs(drawn):
        whole.append((np.bincount(drawn, minlength=30)[:15] == np.bincount(drawn, minlength=30)[15:]).all())
        return 0.5

    statistic_interval(keeps_pairs, np.arange(30) < 15, pairs)
    assert all(whole)


def test_differences_of_every_kind_of_figure_cover(rng, monkeypatch):
    """Two methods whose hits are right on 60 and 50 % of the items, most of them the same."""
    monkeypatch.setattr(intervals, "_RESAMPLES", 60)

    def hits():
        easy = rng.random(80) < 0.45
        return (easy | (rng.random(80) < 3 / 11)).astype(float), (easy | (rng.random(80) < 1 / 11)).astype(float)

    def mean(first, second):
        return paired_difference(first, second, resamples=10)[1:3]

    def two(first, second):
        return paired_mean_of_two((first[:30], first[30:]), (second[:30], second[30:]))[1:3]

    assert covered(hits, 0.1, mean, 400) > 0.92
    assert covered(hits, 0.1, two, 400) > 0.92
    labels = np.arange(80) < 40

    def scores():
        shared = rng.normal(size=80) + labels
        return shared + 0.3 * rng.normal(size=80), shared + 1.5 * rng.normal(size=80)

    def precision(first, second):
        found = [levels(scores) for scores in (first, second)]
        of = [lambda drawn, s=s: average_precision(s[drawn], labels[drawn]) for s in found]
        return paired_statistic(*of, labels)[1:3]

    truth = of_endless_items(average_precision, 1 / np.sqrt(1.09)) - of_endless_items(
        average_precision, 1 / np.sqrt(3.25)
    )
    assert covered(scores, truth, precision, 80) > 0.88


@given(st.integers(1, 10), st.booleans(), st.integers(0, 10_000))
def test_the_exact_sign_flip_test_equals_scipys(n, whole_numbers, seed):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 3, (2, n)).astype(float) if whole_numbers else rng.normal(size=(2, n))
    found = paired_difference(first, second, resamples=2000)
    if n > 1:
        theirs = permutation_test(
            (first, second), lambda a, b: abs((a - b).mean()), permutation_type="samples", alternative="greater"
        )
        assert found.sign_flip_p == pytest.approx(theirs.pvalue, abs=1e-12)
    assert found.difference == pytest.approx((first - second).mean())
    back = paired_difference(second, first, resamples=2000)
    assert (back.difference, back.sign_flip_p) == (-found.difference, found.sign_flip_p)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize(("won", "lost"), [(3, 0), (9, 2), (6, 6), (40, 22), (300, 240)])
def test_on_hits_the_sign_flip_test_is_mcnemars(won, lost):
    first, second = np.zeros((2, won + lost + 50))
    first[:won] = second[won : won + lost] = 1
    exact = binomtest(won, won + lost).pvalue
    found = paired_difference(first, second)
    error = 4 * np.sqrt(exact * (1 - exact) / 10_000) + 1e-4 if won + lost > 13 else 1e-12
    assert found.sign_flip_p == pytest.approx(exact, abs=error)
    assert found.difference == pytest.approx((won - lost) / len(first))


def test_equal_connections_do_not_differ_and_clear_ones_do(rng):
    values = rng.random(50)
    same = paired_difference(values, values)
    assert (same.difference, same.sign_flip_p) == (0.0, 1.0)
    assert -same.low == same.high == pytest.approx(2.01 / 52, abs=1e-3)  # of fifty items no more is known
    clear = paired_difference(values + 0.5, values + 0.1 * rng.random(50))
    assert 0 < clear.low < clear.difference < clear.high
    assert clear.sign_flip_p == pytest.approx(1 / 10_001)

"""Intervals and paired tests against scipy and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, permutation_test

from cmcr.evaluation.detection import average_precision
from cmcr.evaluation.intervals import bootstrap_interval, bootstrap_statistic, paired_difference


def test_bootstrap_interval_of_a_share_is_near_the_normal_one():
    values = np.arange(1000) < 300
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert bootstrap_interval(values) == pytest.approx((0.3 - half, 0.3 + half), abs=0.004)
    assert bootstrap_interval(np.ones(5)) == (1.0, 1.0)


def test_bootstrap_intervals_equal_scipys(rng):
    values = rng.exponential(size=200)
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert bootstrap_interval(values, resamples=20_000) == pytest.approx(theirs, abs=0.01)
    theirs = bootstrap((values,), np.median, n_resamples=5000, method="percentile", rng=1).confidence_interval
    ours = bootstrap_statistic(lambda i: float(np.median(values[i])), np.ones(200, dtype=bool), resamples=5000)
    assert ours == pytest.approx(theirs, abs=0.03)


def test_draws_are_those_of_one_generator_however_they_are_portioned(rng):
    values = rng.random(3000)  # 6 million draws, three portions
    means = values[np.random.default_rng(3).integers(0, 3000, (2000, 3000))].mean(axis=1)
    assert bootstrap_interval(values, seed=3) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-12)


def test_strata_keep_their_sizes(rng):
    labels = np.arange(30) < 2
    scores = labels + rng.normal(size=30)
    shares = []

    def figure(drawn):
        shares.append(labels[drawn].sum())
        return average_precision(scores[drawn], labels[drawn])

    low, high = bootstrap_statistic(figure, labels, resamples=300)
    assert set(shares) == {2}
    assert 0 < low < average_precision(scores, labels) <= high <= 1


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
    assert paired_difference(values, values) == (0.0, 0.0, 0.0, 1.0)
    clear = paired_difference(values + 0.5, values + 0.1 * rng.random(50))
    assert 0 < clear.low < clear.difference < clear.high
    assert clear.sign_flip_p == pytest.approx(1 / 10_001)

"""Metrics against plain numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from cmcr.errors import ConfigError, DimensionError, NonFiniteError, TooFewRowsError
from cmcr.evaluation import metrics
from cmcr.evaluation.metrics import answer_ranks, bootstrap_interval, hit_rate, modality_gap


def ranks_by_sorting(queries, corpus, answers):
    """Ties before the answer: sort by similarity, the answer last among its equals."""
    similarity = queries.astype(np.float64) @ corpus.astype(np.float64).T
    ranks = []
    for row, answer in zip(similarity, answers, strict=True):
        order = sorted(range(len(row)), key=lambda c: (-row[c], c == answer))
        ranks.append(order.index(answer) + 1)
    return np.array(ranks)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 4), st.integers(0, 10_000))
def test_answer_ranks_equal_sorting_even_with_ties(q, c, d, seed):
    rng = np.random.default_rng(seed)
    queries, corpus = rng.integers(-1, 2, (q, d)).astype(np.float32), rng.integers(-1, 2, (c, d)).astype(np.float32)
    answers = rng.integers(0, c, q)
    np.testing.assert_array_equal(answer_ranks(queries, corpus, answers), ranks_by_sorting(queries, corpus, answers))


def test_answer_ranks_do_not_depend_on_the_block(monkeypatch):
    rng = np.random.default_rng(0)
    queries, corpus, answers = rng.normal(size=(23, 5)), rng.normal(size=(11, 5)), rng.integers(0, 11, 23)
    whole = answer_ranks(queries, corpus, answers)
    monkeypatch.setattr(metrics, "_QUERY_BLOCK", 4)
    np.testing.assert_array_equal(answer_ranks(torch.from_numpy(queries), corpus, answers), whole)


def test_a_model_that_cannot_tell_items_apart_gains_nothing():
    same = np.ones((10, 3), dtype=np.float32)
    assert hit_rate(answer_ranks(same, same, np.arange(10)), 9) == 0.0


@pytest.mark.parametrize("k", [1, 2, 5])
def test_hit_rate_equals_scikit_learns_top_k_accuracy(k):
    rng = np.random.default_rng(k)
    queries, corpus = rng.normal(size=(60, 6)), rng.normal(size=(8, 6))
    answers = np.concatenate([np.arange(8), rng.integers(0, 8, 52)])
    expected = top_k_accuracy_score(answers, queries @ corpus.T, k=k)
    assert hit_rate(answer_ranks(queries, corpus, answers), k) == pytest.approx(expected)


def test_answer_ranks_refuse_what_does_not_fit():
    rows = np.ones((4, 3))
    with pytest.raises(DimensionError, match=r"answers \(Q,\)"):
        answer_ranks(rows, np.ones((4, 2)), np.arange(4))
    with pytest.raises(DimensionError, match=r"corpus rows 0\.\.3, got 0\.\.4"):
        answer_ranks(rows, rows, np.array([0, 1, 2, 4]))
    with pytest.raises(NonFiniteError, match="corpus: NaN or infinity"):
        answer_ranks(rows, np.full((4, 3), np.nan), np.arange(4))
    with pytest.raises(TooFewRowsError, match="at least one rank"):
        hit_rate(np.array([], dtype=np.int64), 1)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        hit_rate(np.array([1]), 0)


def test_bootstrap_interval_of_a_share_is_near_the_normal_one():
    values = np.arange(1000) < 300
    low, high = bootstrap_interval(values)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert low == pytest.approx(0.3 - half, abs=0.004)
    assert high == pytest.approx(0.3 + half, abs=0.004)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(values.astype(float)) == pytest.approx((low, high), abs=0.003)
    assert bootstrap_interval(np.ones(5)) == bootstrap_interval(np.ones(5, dtype=bool)) == (1.0, 1.0)
    with pytest.raises(TooFewRowsError):
        bootstrap_interval(np.array([]))


def test_modality_gap_is_the_distance_of_the_means():
    first, second = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[-1.0, 0.0]])
    assert modality_gap(first, second) == pytest.approx(np.hypot(1.5, 0.5))
    assert modality_gap(first, first[::-1]) == 0.0
    with pytest.raises(DimensionError, match="widths differ: 2 and 3"):
        modality_gap(first, np.ones((1, 3)))

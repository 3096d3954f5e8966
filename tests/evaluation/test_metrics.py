"""Retrieval metrics against plain Python from the definitions, and against scikit-learn."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score
from torch.utils._python_dispatch import TorchDispatchMode

from cmcr.errors import DimensionError, DtypeError, NonFiniteError, TooFewRowsError
from cmcr.evaluation.metrics import (
    PerQuery,
    average_precisions,
    discounted_gains,
    expected_scores,
    hits,
    positive_ranks,
    reciprocal_ranks,
    retrieval_scores,
    true_recalls,
)
from reference import retrieval as twin

# metrics and their twins
METRICS = [
    *(
        (lambda ranks, k=k, of=of: of(ranks, k), lambda order, k=k, of=their: of(order, k))
        for of, their in ((hits, twin.hit), (true_recalls, twin.true_recall), (discounted_gains, twin.discounted_gain))
        for k in (1, 2, 5, 20)
    ),
    (average_precisions, twin.average_precision),
    (reciprocal_ranks, twin.reciprocal_rank),
]
seeds = st.integers(0, 10_000)
ROWS = np.eye(3)


def small_task(rng, q, c, d, *, ties):
    """Queries, corpus and positives (at least one each); small whole numbers tie often and multiply exactly."""
    draw = (lambda *shape: rng.integers(-1, 2, shape).astype(np.float32)) if ties else lambda *s: rng.normal(size=s)
    relevance = rng.random((q, c)) < 0.4
    relevance[np.arange(q), rng.integers(0, c, q)] = True
    return draw(q, d), draw(c, d), relevance


def positives_of(relevance):
    return PerQuery.several([np.flatnonzero(row) for row in relevance])


def answer_ranks(queries, corpus, answers):
    return positive_ranks(queries, corpus, PerQuery.one(answers)).values


def split(ranks):
    return [ranks.values[a:b].tolist() for a, b in zip(ranks.starts[:-1], ranks.starts[1:], strict=True)]


@settings(max_examples=60)
@given(st.integers(1, 7), st.integers(1, 12), st.integers(1, 4), st.booleans(), seeds)
def test_ranks_and_metrics_equal_their_definitions(q, c, d, ties, seed):
    queries, corpus, relevance = small_task(np.random.default_rng(seed), q, c, d, ties=ties)
    similarity = queries.astype(np.float64) @ corpus.astype(np.float64).T
    ranks = positive_ranks(queries, corpus, positives_of(relevance))
    assert split(ranks) == [twin.positive_ranks(s, r) for s, r in zip(similarity, relevance, strict=True)]
    orders = [twin.pessimistic_order(s, r.astype(int)) for s, r in zip(similarity, relevance, strict=True)]
    for ours, theirs in METRICS:
        np.testing.assert_allclose(ours(ranks), [*map(theirs, orders)], atol=1e-15)


@settings(max_examples=30)
@given(st.integers(1, 6), seeds)
def test_no_way_of_breaking_ties_gives_less(c, seed):
    queries, corpus, relevance = small_task(np.random.default_rng(seed), 3, c, 1, ties=True)
    ranks = positive_ranks(queries, corpus, positives_of(relevance))
    for query, (row, relevant) in enumerate(zip(queries @ corpus.T, relevance.astype(int), strict=True)):
        orders = list(twin.every_order(row, relevant))
        for ours, theirs in METRICS:
            assert ours(ranks)[query] == pytest.approx(min(map(theirs, orders)), abs=1e-15)


def test_closed_forms():
    ranks = PerQuery.several([[1, 2, 3], [4], [2, 5]])
    assert hits(ranks, 2).tolist() == [True, False, True]
    assert true_recalls(ranks, 2).tolist() == [2 / 3, 0.0, 0.5]
    assert average_precisions(ranks).tolist() == [1.0, 0.25, (1 / 2 + 2 / 5) / 2]
    assert reciprocal_ranks(ranks).tolist() == [1.0, 0.25, 0.5]
    best = 1 + 1 / np.log2(3)
    expected = [1.0, 1 / np.log2(5), (1 / np.log2(3) + 1 / np.log2(6)) / best]
    np.testing.assert_allclose(discounted_gains(ranks), expected, rtol=1e-15)
    assert list(retrieval_scores("t", PerQuery.one(np.array([1, 3])), tops=(5,))) == [
        f"t/{name}" for name in ("R@5", "true_recall@5", "mAP", "MRR", "nDCG@10")
    ]


def test_a_model_that_cannot_tell_items_apart_gains_nothing():
    same = np.ones((10, 3), dtype=np.float32)
    assert set(answer_ranks(0 * same, np.eye(10, 3), np.arange(10))) == {10}  # nothing to round, all the same a tie
    ranks = positive_ranks(same, same, PerQuery.several([range(5)] * 5 + [range(5, 10)] * 5))
    assert split(ranks) == [[6, 7, 8, 9, 10]] * 10


@pytest.mark.parametrize("size", [5, 301])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_duplicate_is_a_tie_at_any_position(dtype, size):
    # Both sizes are such that a matrix product rounds equal columns differently, in float32 or in float64; the longer
    # the queries, the further apart.
    generator = torch.Generator().manual_seed(1)
    corpus = torch.nn.functional.normalize(torch.randn(size, 384, generator=generator), dim=1)
    corpus = torch.cat([corpus, corpus]).to(dtype)
    queries = 100 * (corpus[:size] + 0.02 * torch.randn(size, 384, generator=generator).to(dtype))
    assert set(answer_ranks(queries, corpus, np.arange(size))) == {2}
    assert set(answer_ranks(queries, corpus, np.arange(size) + size)) == {2}
    pairs = np.stack([np.arange(size), np.arange(size) + size], axis=1)
    assert set(map(tuple, split(positive_ranks(queries, corpus, PerQuery.several(pairs))))) == {(1, 2)}


class Largest(TorchDispatchMode):
    """Records how many numbers the largest tensor made inside holds."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


def test_blocks_that_the_other_side_lacks_make_no_ties():
    rng = np.random.default_rng(0)
    queries, corpus = (rng.standard_normal((2000, 4)).astype(np.float32) for _ in range(2))
    none = np.zeros((2000, 8), np.float32)
    own = 7 * rng.standard_normal((2000, 8)).astype(np.float32)
    pairs = PerQuery.one(np.arange(2000))
    apart = positive_ranks(np.hstack([queries, own, none]), np.hstack([corpus, none, own]), pairs)
    np.testing.assert_array_equal(apart.values, positive_ranks(queries, corpus, pairs).values)
    assert (positive_ranks(own[:, :4] * 0, corpus, pairs).values == 2000).all()  # no column left: all are ties


def test_a_large_corpus_is_ranked_in_blocks_of_bounded_memory():
    generator = torch.Generator().manual_seed(0)
    queries, corpus = torch.randn(300, 8, generator=generator), torch.randn(60_000, 8, generator=generator)
    lists = np.arange(900).reshape(300, 3)
    with Largest() as largest:
        ranks = positive_ranks(queries, corpus, PerQuery.several(lists))
    assert 2**21 < largest.numbers <= 2**22  # all similarities together would be 2**24.1
    parts = [
        positive_ranks(queries[one], corpus, PerQuery.several(lists[one])) for one in (slice(100), slice(100, 300))
    ]
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), ranks.values)


@given(seeds)
def test_metrics_equal_scikit_learn(seed):
    queries, corpus, relevance = small_task(np.random.default_rng(seed), 6, 15, 4, ties=False)
    ranks = positive_ranks(queries, corpus, positives_of(relevance))
    pairs = list(zip(relevance.astype(int), queries @ corpus.T, strict=True))
    expected = [average_precision_score(r, s) for r, s in pairs]
    np.testing.assert_allclose(average_precisions(ranks), expected, atol=1e-14)
    for k in (1, 10, 40):
        expected = [ndcg_score(r[None], s[None], k=k) for r, s in pairs]
        np.testing.assert_allclose(discounted_gains(ranks, k), expected, atol=1e-14)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PerQuery.several([[0, 1], []]), TooFewRowsError, "the first is query 1"),
        (lambda: PerQuery.several([]), TooFewRowsError, "there are no queries"),
        (lambda: PerQuery.one(np.array([0.0, 1.0])), DtypeError, "float64"),
        (lambda: PerQuery(np.arange(4), np.array([0, 3])), DimensionError, "starts from 0 to 3"),
        (lambda: positive_ranks(ROWS, ROWS, PerQuery.several([[0], [1, 2, 1], [2]])), DimensionError, "more than once"),
        (lambda: answer_ranks(ROWS, ROWS[:, :2], np.arange(3)), DimensionError, r"\(3, 3\) and \(3, 2\)"),
        (lambda: answer_ranks(ROWS, ROWS, np.arange(2)), DimensionError, "positives of 3 queries, got those of 2"),
        (lambda: answer_ranks(ROWS, ROWS, np.arange(1, 4)), DimensionError, r"corpus rows 0\.\.2, got 1\.\.3"),
        (lambda: answer_ranks(ROWS, ROWS * np.nan, np.arange(3)), NonFiniteError, "corpus"),
        (lambda: answer_ranks(ROWS * 1e200, ROWS * 1e200, np.arange(3)), NonFiniteError, "overflow"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_expected_scores_are_the_means_over_all_orders():
    counts = np.array([1, 3, 2])
    orders = list(permutations(range(6)))
    for query, m in enumerate(counts):
        ranks = PerQuery.several([np.sort(np.array(order[:m]) + 1) for order in orders])
        expected = expected_scores("a_to_b", counts, 6)
        for key, values in retrieval_scores("a_to_b", ranks).items():
            assert expected[key][query] == pytest.approx(values.mean()), key

"""Retrieval metrics against plain Python from the definitions, and against scikit-learn."""

import time
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, top_k_accuracy_score
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cmcr.errors import ConfigError, DimensionError, DtypeError, NonFiniteError, TooFewRowsError
from cmcr.evaluation.metrics import (
    PerQuery,
    answer_ranks,
    average_precisions,
    discounted_gains,
    hit_rate,
    hits,
    positive_ranks,
    reciprocal_ranks,
    retrieval_scores,
    true_recalls,
)
from reference import retrieval as twin

METRICS = {
    "hit": (hits, twin.hit, True),
    "true recall": (true_recalls, twin.true_recall, True),
    "average precision": (average_precisions, twin.average_precision, False),
    "reciprocal rank": (reciprocal_ranks, twin.reciprocal_rank, False),
    "discounted gain": (discounted_gains, twin.discounted_gain, True),
}
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
    for ours, theirs, has_k in METRICS.values():
        for args in [(k,) for k in (1, 2, 5, 20)] if has_k else [()]:
            np.testing.assert_allclose(ours(ranks, *args), [theirs(order, *args) for order in orders], atol=1e-15)


@settings(max_examples=30)
@given(st.integers(1, 6), seeds)
def test_no_way_of_breaking_ties_gives_less(c, seed):
    queries, corpus, relevance = small_task(np.random.default_rng(seed), 3, c, 1, ties=True)
    ranks = positive_ranks(queries, corpus, positives_of(relevance))
    for query, (row, relevant) in enumerate(zip(queries @ corpus.T, relevance.astype(int), strict=True)):
        orders = list(twin.every_order(row, relevant))
        for ours, theirs, has_k in METRICS.values():
            args = (2,) if has_k else ()
            assert ours(ranks, *args)[query] == pytest.approx(min(theirs(order, *args) for order in orders), abs=1e-15)


@given(st.booleans(), st.floats(0.01, 100), seeds)
def test_order_of_the_corpus_and_length_of_the_queries_do_not_matter(ties, scale, seed):
    rng = np.random.default_rng(seed)
    queries, corpus, relevance = small_task(rng, 5, 9, 3, ties=ties)
    ranks = positive_ranks(queries, corpus, positives_of(relevance))
    order = rng.permutation(9)
    assert split(positive_ranks(queries, corpus[order], positives_of(relevance[:, order]))) == split(ranks)
    longer = (queries.astype(np.float64) * scale).astype(queries.dtype)
    assert split(positive_ranks(longer, corpus, positives_of(relevance))) == split(ranks)


@given(seeds)
def test_a_far_distractor_changes_nothing_and_a_near_one_never_helps(seed):
    rng = np.random.default_rng(seed)
    queries, corpus, relevance = small_task(rng, 5, 9, 3, ties=False)
    queries[:, 0] = np.abs(queries[:, 0]) + 5
    positives = positives_of(relevance)
    before = positive_ranks(queries, corpus, positives)
    far, near = ([[sign * 100.0, 0.0, 0.0]] for sign in (-1, 1))
    assert split(positive_ranks(queries, np.concatenate([corpus, far]), positives)) == split(before)
    after = positive_ranks(queries, np.concatenate([corpus, near]), positives)
    for ours, _, has_k in METRICS.values():
        args = (3,) if has_k else ()
        assert (ours(after, *args) <= ours(before, *args)).all()


@given(seeds)
def test_metrics_stay_in_range_and_grow_with_k(seed):
    queries, corpus, relevance = small_task(np.random.default_rng(seed), 6, 8, 2, ties=True)
    scores = retrieval_scores("t", positive_ranks(queries, corpus, positives_of(relevance)), tops=range(1, 11))
    assert all(((values >= 0) & (values <= 1)).all() for values in scores.values())
    for name in ("R", "true_recall"):
        by_k = np.stack([scores[f"t/{name}@{k}"] for k in range(1, 11)])
        assert (np.diff(by_k, axis=0) >= 0).all()
        assert (by_k[7:] == 1).all()  # a k as large as the corpus, or larger, finds everything
    assert (scores["t/true_recall@3"] <= scores["t/R@3"]).all()


def test_closed_forms():
    ranks = PerQuery.several([[1, 2, 3], [4], [2, 5]])
    assert hit_rate(ranks, 2) == pytest.approx(2 / 3)
    assert true_recalls(ranks, 2).tolist() == [2 / 3, 0.0, 0.5]
    assert average_precisions(ranks).tolist() == [1.0, 0.25, (1 / 2 + 2 / 5) / 2]
    assert reciprocal_ranks(ranks).tolist() == [1.0, 0.25, 0.5]
    best = 1 + 1 / np.log2(3)
    expected = [1.0, 1 / np.log2(5), (1 / np.log2(3) + 1 / np.log2(6)) / best]
    np.testing.assert_allclose(discounted_gains(ranks), expected, rtol=1e-15)
    np.testing.assert_allclose(discounted_gains(ranks, 1), [1.0, 0.0, 0.0])
    assert list(retrieval_scores("audio_to_image", np.array([1, 3]), tops=(5,))) == [
        f"audio_to_image/{name}" for name in ("R@5", "true_recall@5", "mAP", "MRR", "nDCG@10")
    ]


def test_a_model_that_cannot_tell_items_apart_gains_nothing():
    same = np.ones((10, 3), dtype=np.float32)
    assert hit_rate(answer_ranks(same, same, np.arange(10)), 9) == 0.0
    assert set(answer_ranks(0 * same, np.eye(10, 3), np.arange(10))) == {10}  # nothing to round, all the same a tie
    ranks = positive_ranks(same, same, PerQuery.several([range(5)] * 5 + [range(5, 10)] * 5))
    assert split(ranks) == [[6, 7, 8, 9, 10]] * 10


def test_a_corpus_of_one_item_is_always_right():
    ranks = positive_ranks(np.eye(3), np.ones((1, 3)), PerQuery.one(np.zeros(3, dtype=int)))
    assert all((values == 1).all() for values in retrieval_scores("t", ranks).values())


@pytest.mark.parametrize("size", [5, 301])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_duplicate_is_a_tie_at_any_position(dtype, size):
    # Both sizes are such that a matrix product rounds equal columns differently, in float32 or in float64.
    generator = torch.Generator().manual_seed(1)
    corpus = torch.nn.functional.normalize(torch.randn(size, 384, generator=generator), dim=1)
    corpus = torch.cat([corpus, corpus]).to(dtype)
    queries = corpus[:size] + 0.02 * torch.randn(size, 384, generator=generator).to(dtype)
    assert set(answer_ranks(queries, corpus, np.arange(size))) == {2}
    assert set(answer_ranks(queries, corpus, np.arange(size) + size)) == {2}
    pairs = np.stack([np.arange(size), np.arange(size) + size], axis=1)
    assert set(map(tuple, split(positive_ranks(queries, corpus, PerQuery.several(pairs))))) == {(1, 2)}


def test_ranks_do_not_depend_on_the_block(rng):
    queries, corpus = rng.normal(size=(2500, 17)).astype(np.float32), rng.normal(size=(40, 17)).astype(np.float32)
    corpus[20:] = corpus[:20]
    lists = [np.flatnonzero(np.arange(40) % 7 == query % 7) for query in range(2500)]
    whole = positive_ranks(queries, corpus, PerQuery.several(lists))  # three blocks
    parts = [slice(0, 700), slice(700, 2500)]
    of_parts = [positive_ranks(torch.from_numpy(queries[p]), corpus, PerQuery.several(lists[p])) for p in parts]
    np.testing.assert_array_equal(np.concatenate([part.values for part in of_parts]), whole.values)


class Held(TorchDispatchMode):
    """Follows the bytes of all tensors made inside that are alive at once."""

    def __init__(self):
        super().__init__()
        self.made, self.peak = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        new = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        self.made += [weakref.ref(t) for t in new if t.untyped_storage().data_ptr() not in given]
        self.made = [made for made in self.made if made() is not None]
        self.peak = max(self.peak, sum(made().untyped_storage().nbytes() for made in self.made))
        return result


@pytest.mark.parametrize("each", [1, 3])
def test_a_large_corpus_is_ranked_in_bounded_memory_and_time(each):
    generator = torch.Generator().manual_seed(0)
    queries, corpus = torch.randn(600, 32, generator=generator), torch.randn(60_000, 32, generator=generator)
    positives = PerQuery.several(np.arange(600 * each).reshape(600, each))
    started = time.process_time()
    with Held() as held:
        positive_ranks(queries, corpus, positives)
    assert 2**23 < held.peak < 2**26  # all similarities together would be 2**27.1 bytes
    assert time.process_time() - started < 20


@pytest.mark.parametrize("k", [1, 2, 5])
def test_hit_rate_equals_scikit_learns_top_k_accuracy(k):
    rng = np.random.default_rng(k)
    queries, corpus = rng.normal(size=(60, 6)), rng.normal(size=(8, 6))
    answers = np.concatenate([np.arange(8), rng.integers(0, 8, 52)])
    expected = top_k_accuracy_score(answers, queries @ corpus.T, k=k)
    assert hit_rate(answer_ranks(queries, corpus, answers), k) == pytest.approx(expected, abs=1e-15)


@given(seeds)
def test_average_precision_and_gain_equal_scikit_learn(seed):
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
        (
            lambda: PerQuery.several([[0, 1], []]),
            TooFewRowsError,
            "1 of 2 queries have no positive, the first is query 1",
        ),
        (lambda: PerQuery.several([]), TooFewRowsError, "there are no queries"),
        (lambda: PerQuery.one(np.array([0.0, 1.0])), DtypeError, "float64"),
        (lambda: PerQuery(np.arange(4), np.array([0, 3])), DimensionError, "starts from 0 to 3"),
        (lambda: positive_ranks(ROWS, ROWS, PerQuery.several([[0], [1, 2, 1], [2]])), DimensionError, "more than once"),
        (lambda: answer_ranks(ROWS, ROWS[:, :2], np.arange(3)), DimensionError, r"\(3, 3\) and \(3, 2\)"),
        (lambda: answer_ranks(ROWS, ROWS, np.arange(2)), DimensionError, "positives of 3 queries, got those of 2"),
        (lambda: answer_ranks(ROWS, ROWS, np.arange(1, 4)), DimensionError, r"corpus rows 0\.\.2, got 1\.\.3"),
        (lambda: answer_ranks(ROWS, ROWS * np.nan, np.arange(3)), NonFiniteError, "corpus"),
        (lambda: answer_ranks(ROWS * 1e200, ROWS * 1e200, np.arange(3)), NonFiniteError, "overflow"),
        (lambda: hit_rate(np.array([], dtype=np.int64), 1), TooFewRowsError, "at least one rank"),
        (lambda: hit_rate(np.array([1]), 0), ConfigError, "at least 1, got 0"),
        (lambda: average_precisions(np.array([0, 1])), DimensionError, "from 1 that rise"),
        (lambda: average_precisions(PerQuery.several([[1, 2], [3, 2]])), DimensionError, "from 1 that rise"),
        (lambda: average_precisions(PerQuery.several([[4, 4]])), DimensionError, "from 1 that rise"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()

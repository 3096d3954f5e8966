"""Retrieval and retention in closed form, and equal to the metrics' numpy twins."""

from dataclasses import replace

import numpy as np
import pytest
from given_spaces import BROKEN, connection, one_hot, silent, unit
from hypothesis import given
from hypothesis import strategies as st

from cmcr.errors import ConfigError
from cmcr.evaluation.baselines import own_space
from cmcr.evaluation.datasets.records import RetrievalRecord
from cmcr.evaluation.metrics import PerQuery
from cmcr.evaluation.tasks.embedding import NotConnectedError
from cmcr.evaluation.tasks.retrieval import prepare, turned
from cmcr.evaluation.tasks.scores import MeanOfTwo, PerItem
from reference import retrieval as twin

METRICS = (*(f"{kind}@{k}" for kind in ("R", "true_recall") for k in (1, 5, 10)), "mAP", "MRR", "nDCG@10")


def record(first, second, positives=None, modalities=("audio", "image")):
    return RetrievalRecord(
        name="vectors",
        modalities=modalities,
        first=list(first),
        second=list(second),
        first_ids=[f"first {row}" for row in range(len(first))],
        second_ids=[f"second {row}" for row in range(len(second))],
        positives=PerQuery.one(np.arange(len(first))) if positives is None else PerQuery.several(positives),
    )


def prepared(given, width, **options):
    return prepare(connection(width), given, silent, **options)


def by_definition(similarity, relevance):
    """Score every query with the numpy twins."""
    found = {metric: [] for metric in METRICS}
    for row, positives in zip(similarity, relevance, strict=True):
        order = twin.pessimistic_order(row, positives)
        for k in (1, 5, 10):
            found[f"R@{k}"].append(twin.hit(order, k))
            found[f"true_recall@{k}"].append(twin.true_recall(order, k))
        found["mAP"].append(twin.average_precision(order))
        found["MRR"].append(twin.reciprocal_rank(order))
        found["nDCG@10"].append(twin.discounted_gain(order, 10))
    return found


def test_several_captions_a_picture_equal_the_twins_in_both_directions(rng):
    pictures, captions = rng.standard_normal((7, 5)), rng.standard_normal((16, 5))
    lists = [[0, 3], [1], [2, 4, 5, 6], [7, 15], [8, 9, 10], [11, 12], [13, 14]]
    relevance = np.array([[int(row in mine) for row in range(16)] for mine in lists])
    scores = prepared(record(pictures, captions, lists, ("image", "text")), 5, within=True).score(own_space)
    similarity = unit(pictures) @ unit(captions).T
    there, back = by_definition(similarity, relevance), by_definition(similarity.T, relevance.T)
    assert set(scores) == {
        f"{name}/{metric}" for name in ("image_to_text", "text_to_image", "mean") for metric in METRICS
    }
    for metric in METRICS:
        np.testing.assert_allclose(scores[f"image_to_text/{metric}"].values, there[metric], atol=1e-12)
        np.testing.assert_allclose(scores[f"text_to_image/{metric}"].values, back[metric], atol=1e-12)
        mean = scores[f"mean/{metric}"]
        assert isinstance(mean, MeanOfTwo)
        assert mean.value == pytest.approx((np.mean(there[metric]) + np.mean(back[metric])) / 2)


def test_means_are_taken_pair_by_pair_whatever_the_order_of_the_second_items():
    """The partner of query 0 stands last; only query 0 and its partner find each other."""
    first, partners = one_hot(4), [[3], [1], [2], [0]]
    second = np.stack([[0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]).astype(np.float32)
    scores = prepared(record(first, second, partners), 4).score(own_space)
    assert scores["audio_to_image/R@1"].values.tolist() == [1, 0, 0, 0]
    assert scores["image_to_audio/R@1"].values.tolist() == [0, 0, 0, 1]
    assert isinstance(scores["mean/R@1"], PerItem)
    assert scores["mean/R@1"].values.tolist() == [1, 0, 0, 0]


def test_as_many_queries_in_both_directions_are_not_always_pairs():
    mean = prepared(record(one_hot(3), one_hot(3), [[0, 1], [2], [2]]), 3).score(own_space)["mean/R@1"]
    assert isinstance(mean, MeanOfTwo)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 10_000))
def test_turned_positives_are_the_columns_of_the_relevance(queries, corpus, seed):
    drawn = np.random.default_rng(seed).random((queries, corpus)) < 0.4
    drawn[np.arange(queries), np.arange(queries) % corpus] = True
    asked, positives = turned(PerQuery.several([np.flatnonzero(row) for row in drawn]), corpus)
    owned = np.flatnonzero(drawn.any(axis=0))
    assert asked.tolist() == owned.tolist()
    of_row = np.split(positives.values, positives.starts[1:-1])
    assert [part.tolist() for part in of_row] == [np.flatnonzero(drawn[:, row]).tolist() for row in owned]


def test_items_that_fail_are_left_out_and_the_others_keep_their_partners(rng):
    first, second = rng.standard_normal((6, 4)), rng.standard_normal((8, 4))
    lists = [[0, 1], [2], [3, 4], [5], [6], [7]]
    broken = record([*first[:3], BROKEN, *first[4:]], [second[0], BROKEN, *second[2:6], BROKEN, second[7]], lists)
    found = prepared(broken, 4)
    assert found.failed == 3
    assert found.first.failed == {3: "'broken' means nothing."}
    assert found.first.kept.tolist() == [0, 1, 2, 5]  # of 4 its only partner is broken
    assert found.second.kept.tolist() == [0, 2, 3, 4, 5, 7]  # 5 stays among what is searched, though nobody asks for it
    relevance = np.array([[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]])
    whole = prepared(
        record(first[[0, 1, 2, 5]], second[[0, 2, 3, 4, 5, 7]], [np.flatnonzero(row) for row in relevance]), 4
    )
    for key, score in whole.score(own_space).items():
        assert found.score(own_space)[key].value == score.value


def test_nothing_left_to_compare_is_an_error():
    with pytest.raises(ConfigError, match="no pair is left"):
        prepared(record([[1, 0], BROKEN], [BROKEN, [0, 1]]), 2)
    with pytest.raises(ConfigError, match="none of the 2 audio items"):
        prepared(record([BROKEN] * 2, one_hot(2)), 2)


def test_retrieval_goes_through_the_connection_and_retention_stays_in_a_space():
    given = record(one_hot(2), one_hot(2), modalities=("audio", "text"))
    spaces = [
        (found.first.space, found.second.space) for found in (prepared(given, 2), prepared(given, 2, within=True))
    ]
    assert spaces == [("ears", "eyes"), ("ears", "ears")]


@pytest.mark.parametrize("encoders", [{}, {"ears": object()}])
def test_encoders_that_are_not_attached_are_asked_for(encoders):
    with pytest.raises(ConfigError, match="ears=PATH") as caught:
        prepare(replace(connection(2), encoders=encoders), record(one_hot(2), one_hot(2)), silent)
    assert not isinstance(caught.value, NotConnectedError)


def test_progress_names_what_is_embedded():
    shares = {}
    given = record(one_hot(130), one_hot(130))
    prepare(connection(130), given, lambda what, share: shares.setdefault(what, []).append(share))
    assert list(shares) == ["audio in ears", "image in eyes"]
    assert shares["audio in ears"] == pytest.approx([64 / 130, 128 / 130, 1])

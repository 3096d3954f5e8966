"""Retrieval and retention in closed form, and equal to the metrics' own twins."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vectors import BROKEN, connection, one_hot, silent, unit

from cmcr.errors import ConfigError
from cmcr.evaluation.datasets.records import RetrievalRecord
from cmcr.evaluation.metrics import PerQuery
from cmcr.evaluation.tasks.embedding import NotConnectedError
from cmcr.evaluation.tasks.pairs import PairsTask, turned_positives
from cmcr.evaluation.tasks.scores import MeanOfTwo, PerItem
from cmcr.evaluation.tasks.ways import OwnSpace
from reference import retrieval as twin

DIRECTIONS = ("audio_to_image", "image_to_audio")
METRICS = (*(f"{kind}@{k}" for kind in ("R", "true_recall") for k in (1, 5, 10)), "mAP", "MRR", "nDCG@10")
TASK = PairsTask("retrieval/vectors")


def pairs(first, second, positives=None, modalities=("audio", "image")):
    return RetrievalRecord(
        name="vectors",
        modalities=modalities,
        first=list(first),
        second=list(second),
        first_ids=[f"first {row}" for row in range(len(first))],
        second_ids=[f"second {row}" for row in range(len(second))],
        positives=PerQuery.one(np.arange(len(first))) if positives is None else PerQuery.several(positives),
    )


def prepared(record, width, task=TASK):
    return task.prepare(connection(width), record, silent)


def scored(record, width, task=TASK):
    return prepared(record, width, task).score(OwnSpace())


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


def test_the_same_codes_find_each_other():
    scores = scored(pairs(one_hot(6), one_hot(6)), 6)
    assert set(scores) == {f"{name}/{metric}" for name in (*DIRECTIONS, "mean") for metric in METRICS}
    for score in scores.values():
        assert isinstance(score, PerItem)
        assert score.values.tolist() == [1] * 6


def test_opposite_codes_come_last():
    scores = scored(pairs(one_hot(4), -one_hot(4)), 4)
    expected = {"R@1": 0, "R@5": 1, "true_recall@1": 0, "mAP": 1 / 4, "MRR": 1 / 4, "nDCG@10": 1 / np.log2(5)}
    for name in (*DIRECTIONS, "mean"):
        for metric, value in expected.items():
            np.testing.assert_allclose(scores[f"{name}/{metric}"].values, [value] * 4)


def test_equal_codes_find_nothing():
    same = np.ones((12, 3), dtype=np.float32)
    scores = scored(pairs(same, same), 3)
    for name in DIRECTIONS:
        assert scores[f"{name}/R@10"].values.tolist() == [0] * 12
        np.testing.assert_allclose(scores[f"{name}/MRR"].values, [1 / 12] * 12)


def test_several_captions_a_picture_equal_the_twins_in_both_directions(rng):
    pictures, captions = rng.standard_normal((7, 5)), rng.standard_normal((16, 5))
    lists = [[0, 3], [1], [2, 4, 5, 6], [7, 15], [8, 9, 10], [11, 12], [13, 14]]
    relevance = np.array([[int(row in mine) for row in range(16)] for mine in lists])
    scores = scored(pairs(pictures, captions, lists, ("image", "text")), 5, PairsTask("retention/x", within=True))
    similarity = unit(pictures) @ unit(captions).T
    there, back = by_definition(similarity, relevance), by_definition(similarity.T, relevance.T)
    for metric in METRICS:
        np.testing.assert_allclose(scores[f"image_to_text/{metric}"].values, there[metric], atol=1e-12)
        np.testing.assert_allclose(scores[f"text_to_image/{metric}"].values, back[metric], atol=1e-12)
        mean = scores[f"mean/{metric}"]
        assert isinstance(mean, MeanOfTwo)
        figure = mean.figure(0)
        assert figure["value"] == pytest.approx((np.mean(there[metric]) + np.mean(back[metric])) / 2)
        assert figure["low"] <= figure["value"] <= figure["high"]


def test_means_are_taken_pair_by_pair_whatever_the_order_of_the_second_items():
    """The partner of query 0 stands last; only query 0 and its partner find each other."""
    first, turn = one_hot(4), [3, 1, 2, 0]
    second = np.stack([[0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]).astype(np.float32)
    scores = scored(pairs(first, second, [[place] for place in turn]), 4)
    assert scores["audio_to_image/R@1"].values.tolist() == [1, 0, 0, 0]
    assert scores["image_to_audio/R@1"].values.tolist() == [0, 0, 0, 1]
    assert scores["mean/R@1"].values.tolist() == [1, 0, 0, 0]


def test_as_many_queries_in_both_directions_are_not_always_pairs():
    """Two pictures of two captions and one of none but its own make no pairs, though the numbers are equal."""
    lists = [[0, 1], [2], [2]]
    mean = scored(pairs(one_hot(3), one_hot(3), lists), 3)["mean/R@1"]
    assert isinstance(mean, MeanOfTwo)
    assert mean.figure(0)["value"] == pytest.approx((2 / 3 + 2 / 3) / 2)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 10_000))
def test_turned_positives_are_the_columns(queries, corpus, seed):
    drawn = np.random.default_rng(seed).random((queries, corpus)) < 0.4
    drawn[np.arange(queries), np.arange(queries) % corpus] = True
    lists = [np.flatnonzero(row) for row in drawn]
    turned = turned_positives(PerQuery.several(lists), corpus)
    owned = np.flatnonzero(drawn.any(axis=0))
    assert turned.rows.tolist() == owned.tolist()
    of_row = np.split(turned.positives.values, turned.positives.starts[1:-1])
    assert [part.tolist() for part in of_row] == [np.flatnonzero(drawn[:, row]).tolist() for row in owned]


def test_items_that_fail_are_left_out_and_the_others_keep_their_partners(rng):
    first, second = rng.standard_normal((6, 4)), rng.standard_normal((8, 4))
    lists = [[0, 1], [2], [3, 4], [5], [6], [7]]
    broken = pairs([*first[:3], BROKEN, *first[4:]], [second[0], BROKEN, *second[2:6], BROKEN, second[7]], lists)
    found = prepared(broken, 4)
    assert found.failed == 3
    assert found.first.failed == {3: "'broken' means nothing."}
    assert sorted(found.second.failed) == [1, 6]
    assert found.first.kept.tolist() == [0, 1, 2, 5]  # of 4 its only partner is broken
    assert found.second.kept.tolist() == [0, 2, 3, 4, 5, 7]  # 5 stays among what is searched, though nobody asks for it
    assert np.split(found.positives.values, found.positives.starts[1:-1])[2].tolist() == [2, 3]
    np.testing.assert_allclose(found.first.rows, unit(first[[0, 1, 2, 5]]), atol=1e-6)
    np.testing.assert_allclose(found.second.rows, unit(second[[0, 2, 3, 4, 5, 7]]), atol=1e-6)
    scores = found.score(OwnSpace())
    relevance = np.array([[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]])
    similarity = unit(first[[0, 1, 2, 5]]) @ unit(second[[0, 2, 3, 4, 5, 7]]).T
    asked = [0, 1, 2, 3, 5]
    back = by_definition(similarity.T[asked], relevance.T[asked])
    for metric, expected in by_definition(similarity, relevance).items():
        np.testing.assert_allclose(scores[f"audio_to_image/{metric}"].values, expected, atol=1e-12)
        np.testing.assert_allclose(scores[f"image_to_audio/{metric}"].values, back[metric], atol=1e-12)


def test_nothing_left_to_compare_is_an_error():
    halves = pairs([[1, 0], BROKEN], [BROKEN, [0, 1]])
    with pytest.raises(ConfigError, match=r"no pair is left of which both items could be embedded"):
        prepared(halves, 2)
    with pytest.raises(ConfigError, match=r"none of the 2 audio items could be embedded with 'ears': 'broken' means"):
        prepared(pairs([BROKEN] * 2, one_hot(2)), 2)


def test_retrieval_goes_through_the_connection_and_retention_stays_in_a_space():
    crossing = prepared(pairs(one_hot(2), one_hot(2)), 2)
    assert (crossing.first.space, crossing.second.space) == ("ears", "eyes")
    within = prepared(
        pairs(one_hot(2), one_hot(2), modalities=("audio", "text")), 2, PairsTask("retention/x", within=True)
    )
    assert (within.first.space, within.second.space) == ("ears", "ears")
    across = prepared(pairs(one_hot(2), one_hot(2), modalities=("audio", "text")), 2)
    assert (across.first.space, across.second.space) == ("ears", "eyes")


@pytest.mark.parametrize(
    ("task", "modalities", "said"),
    [
        (
            TASK,
            ("point_cloud", "image"),
            r"eyes and ears does not connect point_cloud and image: it has eyes: text, im",
        ),
        (PairsTask("x", within=True), ("audio", "image"), r"no space of the connection embeds both audio and image"),
    ],
)
def test_modalities_that_are_not_connected(task, modalities, said):
    with pytest.raises(NotConnectedError, match=said):
        prepared(pairs(one_hot(2), one_hot(2), modalities=modalities), 2, task)


def test_encoders_that_are_not_attached_are_asked_for():
    lonely = connection(2, attached=("eyes",))
    with pytest.raises(ConfigError, match=r"'ears' are not attached: name their model, such as --model ears=PATH") as e:
        TASK.prepare(lonely, pairs(one_hot(2), one_hot(2)), silent)
    assert not isinstance(e.value, NotConnectedError)
    with pytest.raises(ConfigError, match=r"the encoders of space 'ears' are no space: they have no widths"):
        TASK.prepare(
            replace(lonely, encoders={"ears": object(), **lonely.encoders}), pairs(one_hot(2), one_hot(2)), silent
        )


def test_progress_says_what_is_embedded():
    told = {}
    given = pairs(one_hot(130), one_hot(130))
    TASK.prepare(connection(130), given, lambda what, share: told.setdefault(what, []).append(share))
    assert list(told) == ["audio in ears", "image in eyes"]
    assert told["audio in ears"] == pytest.approx([64 / 130, 128 / 130, 1])

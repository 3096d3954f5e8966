"""Zero-shot classification in closed form, with classes that are means of several prompts."""

import numpy as np
import pytest
from vectors import BROKEN, connection, one_hot, silent, unit

from cmcr.errors import ConfigError
from cmcr.evaluation.datasets.records import ClassificationRecord
from cmcr.evaluation.prompts import prompts_of, templates_for
from cmcr.evaluation.tasks.embedding import NotConnectedError
from cmcr.evaluation.tasks.labelled import LabelledTask
from cmcr.evaluation.tasks.ways import OwnSpace, unit_mean

KEYS = {"image/top-1", "image/top-3", "image/top-5", "image/class_mean_top-1"}


def labelled(items, labels, classes, modality="image"):
    ids = [f"item {row}" for row in range(len(items))]
    return ClassificationRecord("vectors", modality, list(items), ids, np.asarray(labels), classes)


def classes(count):
    return [f"class {row}" for row in range(count)]


def spoken(rows, per_class):
    """Give words for prompt rows, and the prompts of each class."""
    words = {f"prompt {row}": vector for row, vector in enumerate(rows)}
    names, ends = list(words), np.cumsum(per_class)
    return words, [names[end - count : end] for count, end in zip(per_class, ends, strict=True)]


def prepared(record, words, prompts, width):
    return LabelledTask("classification/vectors", prompts).prepare(connection(width, words), record, silent)


def test_items_that_are_their_class_are_all_right():
    words, prompts = spoken(one_hot(7), [1] * 7)
    found = prepared(labelled(one_hot(7), range(7), classes(7)), words, prompts, 7)
    scores = found.score(OwnSpace())
    assert found.failed == 0
    assert set(scores) == KEYS
    assert all(score.values.tolist() == [1] * 7 for score in scores.values())


def test_items_that_are_opposite_to_their_class_are_all_wrong():
    words, prompts = spoken(one_hot(7), [1] * 7)
    scores = prepared(labelled(-one_hot(7), range(7), classes(7)), words, prompts, 7).score(OwnSpace())
    assert not any(score.values.any() for score in scores.values())


def test_a_class_is_the_unit_mean_of_its_prompts(rng):
    counts, labels = [3, 1, 4, 2], rng.integers(0, 4, 30)
    rows, items = rng.standard_normal((10, 5)), rng.standard_normal((30, 5))
    words, prompts = spoken(rows, counts)
    found = prepared(labelled(items, labels, classes(4)), words, prompts, 5)
    scores = found.score(OwnSpace())
    groups = np.split(unit(rows), np.cumsum(counts)[:-1])
    means = np.stack([unit(group.mean(axis=0)) for group in groups])
    np.testing.assert_allclose(unit_mean(found.prompts.rows, found.counts), means, atol=1e-6)
    order = np.argsort(-(unit(items) @ means.T), axis=1)
    places = np.argmax(order == labels[:, None], axis=1)
    for top in (1, 3, 5):
        assert scores[f"image/top-{top}"].values.tolist() == (places < top).tolist()
    assert 0 < scores["image/top-1"].values.mean() < 1
    by_class = [(places[labels == label] == 0).mean() for label in range(4)]
    np.testing.assert_allclose(scores["image/class_mean_top-1"].values, by_class)


def test_classes_without_items_have_no_say_in_the_mean_over_classes():
    words, prompts = spoken(one_hot(4), [1] * 4)
    items = one_hot(4)[[1, 1, 1, 0, 3]]  # the fourth is taken for class 0
    scores = prepared(labelled(items, [1, 1, 1, 3, 3], classes(4)), words, prompts, 4).score(OwnSpace())
    assert scores["image/top-1"].values.tolist() == [1, 1, 1, 0, 1]
    assert scores["image/class_mean_top-1"].values.tolist() == [1, 0.5]
    assert scores["image/class_mean_top-1"].figure(0)["value"] == 0.75


def test_items_that_fail_are_left_out_and_the_others_keep_their_labels():
    words, prompts = spoken(one_hot(3), [1] * 3)
    items = [BROKEN, one_hot(3)[1], BROKEN, one_hot(3)[2], one_hot(3)[0]]
    found = prepared(labelled(items, [0, 1, 2, 2, 0], classes(3)), words, prompts, 3)
    assert found.failed == 2
    assert found.labels.tolist() == [1, 2, 0]
    assert found.score(OwnSpace())["image/top-1"].values.tolist() == [1, 1, 1]


def test_without_prompts_the_own_ensemble_is_taken():
    named = ["dog", "cat"]
    ensemble = {name: prompts_of(name, templates_for("audio")) for name in named}
    words = {said: vector for name, vector in zip(named, one_hot(2), strict=True) for said in ensemble[name]}
    task = LabelledTask("classification/vectors")
    given = connection(2, words)
    found = task.prepare(given, labelled(one_hot(2), [0, 1], named, "audio"), silent)
    assert found.counts.tolist() == [len(templates_for("audio"))] * 2
    assert (found.items.space, found.prompts.space) == ("ears", "eyes")  # else it would not be through the connection
    assert found.score(OwnSpace())["audio/top-1"].values.tolist() == [1, 1]


def test_prompts_that_do_not_fit_the_classes_are_refused():
    words, prompts = spoken(one_hot(3), [1] * 3)
    record = labelled(one_hot(3), range(3), classes(3))
    with pytest.raises(ConfigError, match=r"vectors: expected prompts of 3 classes, got those of 2"):
        prepared(record, words, prompts[:2], 3)
    with pytest.raises(ConfigError, match=r"vectors: class 'class 1' has no prompts"):
        prepared(record, words, [prompts[0], [], prompts[2]], 3)
    with pytest.raises(ConfigError, match=r"a prompt cannot be embedded: 'unheard of' means nothing"):
        prepared(record, words, [prompts[0], ["unheard of"], prompts[2]], 3)


def test_what_cannot_be_classified():
    words, prompts = spoken(one_hot(2), [1] * 2)
    with pytest.raises(NotConnectedError, match=r"does not connect point_cloud and text"):
        prepared(labelled(one_hot(2), [0, 1], classes(2), "point_cloud"), words, prompts, 2)
    with pytest.raises(ConfigError, match=r"none of the 1 image items could be embedded with 'eyes': 'broken' means"):
        prepared(labelled([BROKEN], [0], classes(2)), words, prompts, 2)
    with pytest.raises(ConfigError, match=r"unknown modality with prompts 'thermal'"):
        LabelledTask("x").prepare(connection(2), labelled(one_hot(2), [0, 1], classes(2), "thermal"), silent)


def test_progress_says_what_is_embedded():
    words, prompts = spoken(one_hot(2), [1] * 2)
    told = []
    task = LabelledTask("x", prompts)
    task.prepare(
        connection(2, words), labelled(one_hot(2), [0, 1], classes(2)), lambda what, share: told.append((what, share))
    )
    assert told == [("image in eyes", 1.0), ("prompts in ears", 1.0)]

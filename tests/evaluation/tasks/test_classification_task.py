"""Zero-shot classification in closed form, with classes that are means of several prompts."""

import numpy as np
import pytest
from given_spaces import BROKEN, connection, one_hot, silent, unit

from cmcr.errors import ConfigError
from cmcr.evaluation.baselines import own_space
from cmcr.evaluation.datasets.records import ClassificationRecord
from cmcr.evaluation.prompts import TEMPLATES, prompts_of
from cmcr.evaluation.tasks.classification import prepare, unit_means


def record(items, labels, classes, modality="image"):
    ids = [f"item {row}" for row in range(len(items))]
    names = classes if isinstance(classes, list) else [f"class {row}" for row in range(classes)]
    return ClassificationRecord("vectors", modality, list(items), ids, np.asarray(labels), names)


def prepared(given, rows, per_class, width):
    """Give each class its prompts, whose embeddings are the rows."""
    words = {f"prompt {row}": vector for row, vector in enumerate(rows)}
    prompts = [part.tolist() for part in np.split(np.array(list(words)), np.cumsum(per_class)[:-1])]
    return prepare(connection(width, words), given, silent, prompts)


def test_a_class_is_the_unit_mean_of_its_prompts(rng):
    counts, labels = [3, 1, 4, 2, 1, 1], rng.integers(0, 6, 30)
    rows, items = rng.standard_normal((12, 5)), rng.standard_normal((30, 5))
    found = prepared(record(items, labels, 6), rows, counts, 5)
    scores = found.score(own_space)
    groups = np.split(unit(rows), np.cumsum(counts)[:-1])
    means = np.stack([unit(group.mean(axis=0)) for group in groups])
    np.testing.assert_allclose(unit_means(found.prompts.rows, found.counts), means, atol=1e-6)
    order = np.argsort(-(unit(items) @ means.T), axis=1)
    ranks = np.argmax(order == labels[:, None], axis=1)
    for top in (1, 3, 5):
        assert scores[f"image/top-{top}"].values.tolist() == (ranks < top).tolist()
    assert 0 < scores["image/top-1"].value < 1
    by_class = [(ranks[labels == label] == 0).mean() for label in np.unique(labels)]
    np.testing.assert_allclose(scores["image/class_mean_top-1"].values, by_class)


def test_a_class_whose_prompts_cancel_out_is_no_answer():
    np.testing.assert_array_equal(unit_means(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([2])), [[0, 0]])


def test_classes_without_items_do_not_count_in_the_mean_over_classes():
    items = one_hot(4)[[1, 1, 1, 0, 3]]  # the fourth is taken for class 0
    scores = prepared(record(items, [1, 1, 1, 3, 3], 4), one_hot(4), [1] * 4, 4).score(own_space)
    assert scores["image/top-1"].values.tolist() == [1, 1, 1, 0, 1]
    assert scores["image/class_mean_top-1"].values.tolist() == [1, 0.5]


def test_items_that_fail_are_left_out_and_the_others_keep_their_labels():
    items = [BROKEN, one_hot(3)[1], BROKEN, one_hot(3)[2], one_hot(3)[0]]
    found = prepared(record(items, [0, 1, 2, 2, 0], 3), one_hot(3), [1] * 3, 3)
    assert found.failed == 2
    assert found.labels.tolist() == [1, 2, 0]
    assert found.score(own_space)["image/top-1"].values.tolist() == [1, 1, 1]


def test_without_prompts_the_own_ensemble_is_taken_through_the_connection():
    named = ["dog", "cat"]
    ensemble = {name: prompts_of(name, TEMPLATES["audio"]) for name in named}
    words = {said: vector for name, vector in zip(named, one_hot(2), strict=True) for said in ensemble[name]}
    found = prepare(connection(2, words), record(one_hot(2), [0, 1], named, "audio"), silent)
    assert found.counts.tolist() == [len(TEMPLATES["audio"])] * 2
    assert (found.items.space, found.prompts.space) == ("ears", "eyes")
    assert found.score(own_space)["audio/top-1"].values.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("prompts", "fact"),
    [([["a"], ["b"]], "3 classes"), ([["a"], [], ["b"]], "3 classes"), ([["a"], ["unheard"], ["b"]], "'unheard'")],
)
def test_prompts_that_do_not_fit_the_classes_are_refused(prompts, fact):
    words = {"a": one_hot(3)[0], "b": one_hot(3)[1]}
    with pytest.raises(ConfigError, match=fact):
        prepare(connection(3, words), record(one_hot(3), range(3), 3), silent, prompts)

"""Counterfactual recognition in closed form, and equal to the detection metrics and their twins."""

import numpy as np
import pytest
from vectors import BROKEN, connection, one_hot, silent, unit

from cmcr.errors import ConfigError
from cmcr.evaluation.datasets.records import CounterfactualRecord
from cmcr.evaluation.detection import average_precision, max_f1
from cmcr.evaluation.intervals import bootstrap_statistic
from cmcr.evaluation.tasks.embedding import NotConnectedError
from cmcr.evaluation.tasks.judged import JudgedTask
from cmcr.evaluation.tasks.ways import OwnSpace
from reference import detection as twin

TASK = JudgedTask("counterfactual/vectors")


def judged(images, sounds, present):
    ids = [f"pair {row}" for row in range(len(images))]
    return CounterfactualRecord("vectors", list(images), list(sounds), ids, np.asarray(present, dtype=bool))


def prepared(record, width):
    return TASK.prepare(connection(width), record, silent)


def values(record, width, seed=0):
    return {key: score.figure(seed)["value"] for key, score in prepared(record, width).score(OwnSpace()).items()}


def test_sounds_of_the_picture_are_told_from_others():
    codes = one_hot(4)
    found = values(judged(codes, codes[[0, 1, 3, 2]], [True, True, False, False]), 4)
    assert found == {"present/AP": 1, "present/max_F1": 1}


def test_the_wrong_way_round_is_worse_than_claiming_all():
    codes = one_hot(4)
    found = values(judged(codes, codes[[1, 0, 2, 3]], [True, True, False, False]), 4)
    assert found == {"present/AP": 0.5, "present/max_F1": pytest.approx(2 / 3)}  # nothing beats claiming everything


def test_figures_equal_the_metrics_and_their_twins(rng):
    images, sounds, present = rng.standard_normal((20, 3)), rng.standard_normal((20, 3)), rng.random(20) < 0.4
    scores = prepared(judged(images, sounds, present), 3).score(OwnSpace())
    cosines = (unit(images) * unit(sounds)).sum(axis=1)
    figure = scores["present/AP"].figure(5)
    assert figure["value"] == pytest.approx(twin.average_precision(cosines.tolist(), present.tolist()))
    assert figure["n"] == 20
    low, high = bootstrap_statistic(
        lambda chosen: average_precision(cosines[chosen], present[chosen]), 20, strata=present, seed=5
    )
    assert (figure["low"], figure["high"]) == pytest.approx((low, high))
    best = scores["present/max_F1"].figure(5)
    assert best["value"] == pytest.approx(twin.max_f1(cosines.tolist(), present.tolist())[0])
    chosen = rng.integers(0, 20, 20)
    assert scores["present/max_F1"].of(chosen) == pytest.approx(max_f1(cosines[chosen], present[chosen]).f1)
    assert scores["present/AP"].labels.tolist() == present.tolist()


def test_pairs_of_which_one_item_fails_are_left_out_and_the_others_stay_together():
    codes = one_hot(4)
    images = [codes[0], BROKEN, codes[2], codes[3], codes[1], BROKEN]
    sounds = [codes[0], codes[1], BROKEN, codes[0], codes[1], BROKEN]
    found = prepared(judged(images, sounds, [True, True, False, False, True, False]), 4)
    assert found.failed == 3
    assert found.images.kept.tolist() == found.sounds.kept.tolist() == [0, 3, 4]
    assert found.present.tolist() == [True, False, True]
    np.testing.assert_array_equal(found.images.rows, codes[[0, 3, 1]])
    np.testing.assert_array_equal(found.sounds.rows, codes[[0, 0, 1]])
    assert found.score(OwnSpace())["present/AP"].figure(0)["value"] == 1


def test_nothing_left_to_tell_apart_is_an_error():
    codes = one_hot(2)
    with pytest.raises(ConfigError, match=r"vectors: none of the 2 pairs has both items embedded"):
        prepared(judged([codes[0], BROKEN], [BROKEN, codes[1]], [True, False]), 2)
    with pytest.raises(
        ConfigError, match=r"vectors: expected pairs of both kinds, got 0 whose sound is in the pic.* 1"
    ):
        prepared(judged([BROKEN, codes[0]], codes, [True, False]), 2)
    with pytest.raises(ConfigError, match=r"got 2 whose sound is in the picture and 0 whose sound is not"):
        prepared(judged(codes, codes, [True, True]), 2)


def test_spaces_without_pictures_or_sounds():
    record = judged(one_hot(2), one_hot(2), [True, False])
    with pytest.raises(
        NotConnectedError, match=r"does not connect image and audio: it has eyes: text; ears: text, aud"
    ):
        TASK.prepare(connection(2, without=("image",)), record, silent)
    with pytest.raises(ConfigError, match=r"the encoders of space 'eyes' are not attached"):
        TASK.prepare(connection(2, attached=("ears",)), record, silent)


def test_progress_says_what_is_embedded():
    told = []
    record = judged(one_hot(2), one_hot(2), [True, False])
    TASK.prepare(connection(2), record, lambda what, share: told.append((what, share)))
    assert told == [("image in eyes", 1.0), ("audio in ears", 1.0)]

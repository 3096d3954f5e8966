"""Counterfactual recognition in closed form, and equal to the numpy twins."""

import numpy as np
import pytest
from given_spaces import BROKEN, connection, one_hot, silent, unit

from cmcr.errors import ConfigError
from cmcr.evaluation.baselines import own_space
from cmcr.evaluation.datasets.records import CounterfactualRecord
from cmcr.evaluation.tasks.counterfactual import prepare
from reference import detection as twin


def prepared(images, sounds, present, width):
    ids = [f"pair {row}" for row in range(len(images))]
    record = CounterfactualRecord("vectors", list(images), list(sounds), ids, np.asarray(present, dtype=bool))
    return prepare(connection(width), record, silent)


def test_the_wrong_way_round_is_no_better_than_claiming_all():
    codes = one_hot(4)
    scores = prepared(codes, codes[[1, 0, 2, 3]], [True, True, False, False], 4).score(own_space)
    assert scores["present/AP"].value == 0.5
    assert scores["present/max_F1"].value == pytest.approx(2 / 3)


@pytest.mark.parametrize("count", [20, 45, 95])  # so many shares of rounded size sum to more than 1
def test_no_bound_of_a_perfect_figure_is_above_1(count):
    present = np.arange(2 * count) < count
    angles = np.linspace(0, np.pi / 2, 2 * count)
    sounds = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for score in prepared([[1, 0]] * len(angles), sounds, present, 2).score(own_space).values():
        figure = score.figure(0)
        assert (figure["value"], figure["high"]) == (1.0, 1.0)
        assert 1 - 4.5 / count < figure["low"] < 1 - 3 / count  # of so many positives no more is known


def test_figures_equal_their_twins_on_any_draw(rng):
    images, sounds, present = rng.standard_normal((20, 3)), rng.standard_normal((20, 3)), rng.random(20) < 0.4
    scores = prepared(images, sounds, present, 3).score(own_space)
    cosines = (unit(images) * unit(sounds)).sum(axis=1)
    for chosen in (np.arange(20), rng.integers(0, 20, 20)):
        drawn = cosines[chosen].tolist(), present[chosen].tolist()
        assert scores["present/AP"].of(chosen) == pytest.approx(twin.average_precision(*drawn))
        assert scores["present/max_F1"].of(chosen) == pytest.approx(twin.max_f1(*drawn))
    assert scores["present/AP"].labels.tolist() == present.tolist()  # resamples keep the share of positives


def test_pairs_of_which_one_item_fails_are_left_out_and_the_others_stay_together():
    codes = one_hot(4)
    images = [codes[0], BROKEN, codes[2], codes[3], codes[1], BROKEN]
    sounds = [codes[0], codes[1], BROKEN, codes[0], codes[1], BROKEN]
    found = prepared(images, sounds, [True, True, False, False, True, False], 4)
    assert found.failed == 3
    assert found.images.kept.tolist() == found.sounds.kept.tolist() == [0, 3, 4]
    np.testing.assert_array_equal(found.images.rows, codes[[0, 3, 1]])
    np.testing.assert_array_equal(found.sounds.rows, codes[[0, 0, 1]])
    assert found.score(own_space)["present/AP"].value == 1


@pytest.mark.parametrize(
    ("images", "sounds", "present"),
    [
        ([[1, 0], BROKEN], [BROKEN, [0, 1]], [True, False]),
        ([BROKEN, [1, 0]], [[1, 0], [0, 1]], [True, False]),
        ([[1, 0], [0, 1]], [[1, 0], [0, 1]], [True, True]),
    ],
)
def test_nothing_left_to_tell_apart_is_an_error(images, sounds, present):
    with pytest.raises(ConfigError, match="pairs of both kinds"):
        prepared(images, sounds, present, 2)

"""A collapsed, a random and a perfect model through every task: the first scores no more than a coin does."""

import numpy as np
import pytest
from coloured import NamedColour, PatchColour, picture, record, sound
from given_spaces import connected, silent, unit

from cmcr.evaluation.baselines import chance, own_space
from cmcr.evaluation.metrics import PerQuery, expected_scores
from cmcr.evaluation.tasks.classification import PreparedClassification
from cmcr.evaluation.tasks.counterfactual import PreparedCounterfactual
from cmcr.evaluation.tasks.embedding import Embedded
from cmcr.evaluation.tasks.localization import prepare
from cmcr.evaluation.tasks.regions import grid_boxes
from cmcr.evaluation.tasks.retrieval import PreparedRetrieval

N = 60


def collapsed(embedded):
    """All items at one place, but for the rounding of float32."""
    rng = np.random.default_rng(len(embedded.rows))
    rows = np.ones((len(embedded.rows), 64), dtype=np.float32) / 8
    return rows + rng.choice(np.float32([-1e-8, 0, 1e-8]), rows.shape)


def whole(modality, rows):
    return Embedded.whole("eyes" if modality == "image" else "ears", modality, rows)


def codes(seed=0):
    """Unlike rows, of the same items in both modalities."""
    return unit(np.random.default_rng(seed).standard_normal((N, 16)).astype(np.float32))


def near(rows, seed=2):
    """As these rows, but no two alike."""
    return unit(rows + 0.01 * np.random.default_rng(seed).standard_normal(rows.shape).astype(np.float32))


def retrieval():
    return PreparedRetrieval(whole("audio", codes()), whole("image", codes()), PerQuery.one(np.arange(N)))


def captions():
    lists = PerQuery.several(np.arange(N).reshape(-1, 5))
    return PreparedRetrieval(
        whole("image", codes()[::5]), whole("text", near(np.repeat(codes()[::5], 5, axis=0))), lists
    )


def classification():
    labels = np.arange(N) % 6
    return PreparedClassification(
        whole("image", near(codes()[labels])), whole("text", np.repeat(codes()[:6], 2, axis=0)), np.full(6, 2), labels
    )


def counterfactual():
    present = np.arange(N) < N // 2
    sounds = np.where(present[:, None], codes(), codes(1))
    return PreparedCounterfactual(whole("image", codes()), whole("audio", sounds), present, 0)


class Ears(NamedColour):
    """Hears something in silence too."""

    def decode(self, item):
        return super().decode(item) + np.float32([0.01, 0.02, 0.03])


def localization(count=8):
    """A red source that fills most of the picture: to answer with all of it would be right."""
    big = np.array([0.0, 0.0, 1.0, 0.75])
    pictures = [picture({0: "red", 1: "red"}) for _ in range(count)]
    given = record(pictures, [sound("red")] * count, [big] * count)
    return prepare(connected([PatchColour(), Ears()]), given, silent, lambda seen: grid_boxes())


TASKS = (retrieval, captions, classification, counterfactual)


@pytest.mark.parametrize("task", TASKS)
def test_perfect_is_perfect_and_chance_is_chance(task):
    prepared = task()
    perfect, known = prepared.score(own_space), prepared.chance(0)
    random = [prepared.score(chance(seed)) for seed in range(20)]
    assert set(perfect) == set(random[0]) == set(known)
    for key, score in perfect.items():
        if "true_recall" not in key:  # five captions are not all among the first one
            assert score.value == pytest.approx(1.0)
        values = [scores[key].value for scores in random]
        assert abs(np.mean(values) - known[key].value) < 4 * np.std(values) / np.sqrt(20) + 1e-3, key


@pytest.mark.parametrize("task", TASKS)
def test_a_collapsed_model_scores_no_more_than_a_coin(task):
    prepared = task()
    scores, known = prepared.score(collapsed), prepared.chance(0)
    for key, score in scores.items():
        assert score.value <= known[key].value + 1e-9, key
    if task is counterfactual:
        assert scores["present/AP"].value == 0.5  # the share of true pairs, exactly
        assert scores["present/max_F1"].value == pytest.approx(2 / 3)  # claiming all


def test_a_collapsed_model_localizes_as_a_coin_does():
    prepared = localization()
    scores = prepared.score(collapsed)
    (answer, *_) = prepared.answers(collapsed)
    assert len(answer.box_ious) == len(grid_boxes())  # all are equally near
    coin = (answer.box_ious >= 0.5).mean()
    assert 0 < coin < 0.2 < answer.box_ious[0]  # the whole picture would be right
    assert scores["proposals/cIoU@0.5"].value == pytest.approx(coin)
    assert scores["dense/cIoU@0.5"].value == 0  # a flat map points nowhere
    for name in ("silence", "noise", "other_sound"):
        assert scores[f"{name}/AP"].value == 0.5


def test_chance_does_not_tell_sound_from_silence():
    """Over seeds, AP against silence and noise is what a random order reaches: 0.5 and a little, of few items."""
    found = [localization().chance(seed) for seed in range(6)]
    random_order = expected_scores("any", np.array([8]), 16)["any/mAP"][0]
    for name in ("silence", "noise"):
        values = [scores[f"{name}/AP"].value for scores in found]
        assert abs(np.mean(values) - random_order) < 4 * np.std(values) / np.sqrt(6)

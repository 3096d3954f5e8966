"""Localisation in closed form with coloured squares, and whole with the miniature spaces."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from coloured import QUARTERS, MeanColour, PatchColour, connection, picture, record, silent, sound

import cmcr
from cmcr.data.numbers import SEEN_NUMBERS, draw_pictures, speak_sounds, write_texts
from cmcr.errors import ConfigError
from cmcr.evaluation.detection import average_precision
from cmcr.evaluation.localization import consensus_iou, consensus_map, predicted_region
from cmcr.evaluation.miniature import mini_record
from cmcr.evaluation.tasks.dense import DenseSettings, up_sampled
from cmcr.evaluation.tasks.grounded import GroundedRules, GroundedTask, _silence_and_noise
from cmcr.evaluation.tasks.proposals import GridProposals
from cmcr.evaluation.tasks.ways import Chance, OwnSpace, ThroughConnection

HALVES = GridProposals(shapes=((0.5, 0.5),), stride=1.0)
PATCHES = DenseSettings(pixels=64)
RULES = GroundedRules(at=0.8)  # cosines are 1 for the colour, 0.58 for grey and 0 for another colour
TASK = GroundedTask("squares", proposals=HALVES, dense=PATCHES, rules=RULES)
SCENES = [({0: "red", 3: "blue"}, "red", 0), ({1: "green", 2: "red"}, "green", 1), ({2: "blue", 0: "green"}, "blue", 2)]


def scenes():
    pictures = [picture(squares) for squares, _, _ in SCENES]
    return record(pictures, [sound(colour) for _, colour, _ in SCENES], [QUARTERS[at] for _, _, at in SCENES])


def values(scores, key):
    return scores[key].values.tolist()


def test_perfect_knowledge_finds_everything():
    prepared = TASK.prepare(connection(PatchColour()), scenes(), silent)
    scores = prepared.score(OwnSpace())
    assert prepared.failed == 0
    assert values(scores, "proposals/cIoU@0.5") == values(scores, "dense/cIoU@0.5") == [1, 1, 1]
    assert values(scores, "proposals/AUC") == pytest.approx([1, 1, 1])
    for answer, (_, _, at) in zip(prepared.answers(OwnSpace()), SCENES, strict=True):
        assert answer.box.tolist() == QUARTERS[at].tolist()
        assert answer.box_overlap == 1
        assert answer.map_overlap > 0.9  # bilinear edges are a little round
        assert answer.cosines[0] == pytest.approx(1)


def test_another_sound_points_elsewhere():
    given = scenes()
    asked = replace(given, sounds=[sound("blue"), sound("red"), sound("green")])  # each the other thing in the picture
    prepared = TASK.prepare(connection(PatchColour()), asked, silent)
    scores = prepared.score(OwnSpace())
    for key in ("proposals/cIoU@0.5", "dense/cIoU@0.5"):
        assert values(scores, key) == [0, 0, 0]
    assert values(scores, "proposals/AUC") == pytest.approx([0.025] * 3)


def test_map_is_that_of_the_definition_and_rules_decide_its_cut():
    prepared = TASK.prepare(connection(PatchColour()), scenes(), silent)
    features = PatchColour().patch_features([picture(SCENES[0][0])], 64)[0].astype(np.float16).astype(np.float32)
    expected = up_sampled(features @ np.array([1, 0, 0], dtype=np.float32), (224, 224))
    answer = next(prepared.answers(OwnSpace()))
    np.testing.assert_allclose(answer.map, expected, atol=1e-6)
    truth = consensus_map([QUARTERS[:1]], (224, 224))
    for rule, at in (("value", 0.5), ("value", 0.9), ("share", 0.5)):
        ruled = replace(prepared, rules=GroundedRules(rule=rule, at=at))
        overlap = next(ruled.answers(OwnSpace())).map_overlap
        assert overlap == consensus_iou(predicted_region(expected, rule=rule, at=at), truth)
    smaller = replace(prepared, rules=GroundedRules(shape=(100, 120)))
    assert next(smaller.answers(OwnSpace())).map.shape == (100, 120)


def test_windows_do_where_there_are_no_patches():
    dense = DenseSettings(cells=(4, 4), window=0.25)
    scores = replace(TASK, dense=dense).prepare(connection(MeanColour()), scenes(), silent).score(OwnSpace())
    assert values(scores, "dense/cIoU@0.5") == [1, 1, 1]


def test_several_annotators_count_as_the_literature_has_it():
    upper = [0, 0, 1, 0.5]
    given = record([picture({0: "red"})], [sound("red")], [[QUARTERS[0], upper]])
    overlaps = {}
    for agreement in (1, 2):
        task = replace(TASK, rules=GroundedRules(agreement=agreement))
        overlaps[agreement] = next(task.prepare(connection(), given, silent).answers(OwnSpace())).box_overlap
    # The answer is the quarter. Of one: the union is a half. Of two: the quarter counts 1, the other quarter 1/2.
    assert overlaps == {1: pytest.approx(1 / 2), 2: pytest.approx(1 / 1.5)}


def test_distractors_are_silence_noise_and_the_sound_half_the_list_away():
    prepared = TASK.prepare(connection(PatchColour()), scenes(), silent)
    assert prepared.played[:, 0].tolist() == [0, 1, 2]
    assert prepared.played[:, 1].tolist() == [-1, -1, -1]  # this space cannot embed silence
    assert prepared.played[:, 2].tolist() == [3, 4, 5]
    assert prepared.played[:, 3].tolist() == [1, 2, 0]
    scores = prepared.score(OwnSpace())
    assert "silence/AP" not in scores
    answers = list(prepared.answers(OwnSpace()))
    assert np.isnan([answer.cosines[1] for answer in answers]).all()
    truth = np.repeat([True, False], 3)
    for column, key in ((2, "noise/AP"), (3, "other_sound/AP")):
        confidence = [answer.cosines[0] for answer in answers] + [answer.cosines[column] for answer in answers]
        assert scores[key].of(np.arange(6)) == average_precision(confidence, truth)
        assert scores[key].labels.tolist() == truth.tolist()
    # Green is not in the first picture, red in the third neither; in the second blue is not: all others score less.
    assert scores["other_sound/AP"].of(np.arange(6)) == 1
    lonely = TASK.prepare(connection(), record([picture({0: "red"})], [sound("red")], [QUARTERS[0]]), silent)
    assert "other_sound/AP" not in lonely.score(OwnSpace())


def test_silence_is_silent_and_noise_is_not_and_both_are_always_the_same():
    silence, *noises = _silence_and_noise()
    assert not silence["array"].any()
    assert [noise["array"].std() for noise in noises] == pytest.approx([0.1] * 8, rel=0.01)
    again = _silence_and_noise()
    for one, other in zip([silence, *noises], again, strict=True):
        np.testing.assert_array_equal(one["array"], other["array"])
    assert len({noise["array"].tobytes() for noise in noises}) == 8


SPECK = [0.0, 0.0, 1e-4, 1e-4]  # covers no pixel of the map


def test_items_that_cannot_be_measured_are_left_out_and_the_others_keep_their_places():
    given = scenes()
    fourth, quarter = picture({3: "green"}), QUARTERS[3]
    broken = record(
        ["missing.png", *given.images, fourth, fourth],
        [sound("red"), *given.sounds, "broken", sound("green")],
        [QUARTERS[0], *given.boxes, quarter, SPECK],
    )
    eyes = PatchColour()
    prepared = TASK.prepare(connection(eyes), broken, silent)
    assert prepared.failed == 3
    assert sorted(prepared.left_out) == [0, 4, 5]
    assert "missing.png" in prepared.left_out[0]
    assert prepared.left_out[4] == "no sound at all."
    assert "no annotator drew a box" in prepared.left_out[5]
    assert prepared.ids == ["item 1", "item 2", "item 3"]
    assert prepared.played[:, 0].tolist() == [1, 2, 3]
    assert eyes.embedded == 3 * 5  # no picture for which there is no question
    whole = TASK.prepare(connection(PatchColour()), given, silent).score(OwnSpace())
    scores = prepared.score(OwnSpace())
    for key in ("proposals/cIoU@0.5", "proposals/AUC", "dense/cIoU@0.5", "dense/AUC"):
        assert values(scores, key) == values(whole, key)


@pytest.mark.parametrize(
    ("images", "sounds", "boxes", "reason"),
    [
        (["missing.png"], [sound("red")], [QUARTERS[0]], r"none of the 1 items of coloured squares .*missing.png"),
        ([picture({})], ["broken"], [QUARTERS[0]], "can be measured: no sound at all"),
        ([picture({})], [sound("red")], [SPECK], "can be measured: no annotator drew a box"),
        ([], [], [], "none of the 0 items of coloured squares can be measured: there are none"),
    ],
)
def test_nothing_to_measure_is_an_error(images, sounds, boxes, reason):
    with pytest.raises(ConfigError, match=reason):
        TASK.prepare(connection(), record(images, sounds, boxes), silent)


def test_maps_too_small_for_boxes_are_refused():
    with pytest.raises(ConfigError, match=r"shape: expected at least 100 x 100, got \(14, 224\)"):
        GroundedRules(shape=(14, 224))


def test_progress_says_what_is_done():
    told = {}
    TASK.prepare(connection(PatchColour()), scenes(), lambda what, share: told.setdefault(what, []).append(share))
    assert list(told) == ["audio in ears", "proposals in eyes", "patches in eyes"]
    for shares in told.values():
        assert shares == sorted(shares)
        assert shares[-1] == 1


@pytest.fixture(scope="module")
def miniature():
    rng, numbers = np.random.default_rng(7), np.repeat(SEEN_NUMBERS, 2)
    sounds = [{"array": heard, "sampling_rate": 8000} for heard in speak_sounds(rng.permutation(numbers), "train", rng)]
    items = {"text": write_texts(numbers, rng), "image": list(draw_pictures(rng.permutation(numbers), "train", rng))}
    clip, clap = cmcr.space("mini-clip"), cmcr.space("mini-clap")
    left = cmcr.Memories(clip, **{modality: clip.encode(given, modality) for modality, given in items.items()})
    right = cmcr.Memories(clap, text=clap.encode(items["text"], "text"), audio=clap.encode(sounds, "audio"))
    return cmcr.connect(left, right, seed=0, epochs=12)


def test_miniature_world_is_localised_far_above_chance(miniature):
    whole = mini_record("localization/mini")
    some = replace(
        whole, images=whole.images[:40], sounds=whole.sounds[:40], ids=whole.ids[:40], boxes=whole.boxes[:40]
    )
    prepared = GroundedTask("localization/mini").prepare(miniature, some, silent)
    assert prepared.failed == 0
    found, guessed = prepared.score(ThroughConnection(miniature)), prepared.score(Chance(0))
    assert set(found) == {
        *(f"{kind}/{key}" for kind in ("proposals", "dense") for key in ("cIoU@0.5", "AUC")),
        *(f"{name}/AP" for name in ("silence", "noise", "other_sound")),
    }
    assert found["proposals/cIoU@0.5"].values.mean() > 0.6
    assert guessed["proposals/cIoU@0.5"].values.mean() < 0.15
    assert found["dense/AUC"].values.mean() > guessed["dense/AUC"].values.mean() + 0.1
    for name in ("silence", "noise", "other_sound"):
        assert found[f"{name}/AP"].of(np.arange(80)) > 0.75
        assert guessed[f"{name}/AP"].of(np.arange(80)) < 0.7
    again = prepared.score(ThroughConnection(miniature))
    assert torch.equal(*(torch.tensor(scores["dense/AUC"].values) for scores in (found, again)))

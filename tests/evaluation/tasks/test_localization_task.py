"""Localisation in closed form with coloured squares, and its heat maps."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from coloured import QUARTERS, PatchColour, connection, picture, record, sound
from given_spaces import silent
from PIL import Image

from cmcr.errors import ConfigError, MissingDependencyError, WriteError
from cmcr.evaluation import localization
from cmcr.evaluation.baselines import own_space
from cmcr.evaluation.detection import average_precision
from cmcr.evaluation.localization import consensus_iou, consensus_map, predicted_region
from cmcr.evaluation.tasks import regions
from cmcr.evaluation.tasks.heatmaps import draw_heatmap, write_heatmaps
from cmcr.evaluation.tasks.localization import prepare, silence_and_noise, up_sampled

SCENES = [({0: "red", 3: "blue"}, "red", 0), ({1: "green", 2: "red"}, "green", 1), ({2: "blue", 0: "green"}, "blue", 2)]
SPECK = [0.0, 0.0, 1e-4, 1e-4]  # covers no pixel of the map


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Look at patches of 8 pixels of the squares' own pictures; cosines are 1 for the colour, 0.58 for grey, else 0."""
    monkeypatch.setattr(regions, "_PATCHED_PIXELS", 64)
    monkeypatch.setattr(localization, "CUT", 0.8)


def scenes(sounds=None):
    pictures = [picture(squares) for squares, _, _ in SCENES]
    heard = sounds or [colour for _, colour, _ in SCENES]
    return record(pictures, [sound(colour) for colour in heard], [QUARTERS[at] for _, _, at in SCENES])


def prepared(given, eyes=None, agreement=1):
    return prepare(connection(eyes or PatchColour()), given, silent, lambda seen: QUARTERS, agreement)


def values(scores, key):
    return scores[key].values.tolist()


def test_perfect_knowledge_finds_everything():
    found = prepared(scenes())
    scores = found.score(own_space)
    assert found.failed == 0
    assert values(scores, "proposals/cIoU@0.5") == values(scores, "dense/cIoU@0.5") == [1, 1, 1]
    assert values(scores, "proposals/AUC") == pytest.approx([1, 1, 1])
    for answer, (_, _, at) in zip(found.answers(own_space), SCENES, strict=True):
        assert answer.box.tolist() == QUARTERS[at].tolist()
        assert answer.box_iou == 1
        assert answer.map_iou > 0.9  # bilinear edges are a little round
        assert answer.cosines[0] == pytest.approx(1)


def test_another_sound_points_elsewhere():
    scores = prepared(scenes(["blue", "red", "green"])).score(own_space)  # each the other thing in the picture
    assert values(scores, "proposals/cIoU@0.5") == values(scores, "dense/cIoU@0.5") == [0, 0, 0]
    assert values(scores, "proposals/AUC") == pytest.approx([0.025] * 3)


def test_map_is_that_of_the_definition_and_rules_decide_its_cut():
    found = prepared(scenes())
    features = PatchColour().patch_features([picture(SCENES[0][0])], 64)[0].astype(np.float16).astype(np.float32)
    expected = up_sampled(features @ np.array([1, 0, 0], dtype=np.float32), (224, 224))
    answer = next(found.answers(own_space))
    np.testing.assert_allclose(answer.map, expected, atol=1e-6)
    truth = consensus_map(QUARTERS[:1], (224, 224))
    for rule in ("value", "share"):
        iou = next(replace(found, map_rule=rule).answers(own_space)).map_iou
        assert iou == consensus_iou(predicted_region(expected, rule), truth)


def test_several_annotators_count_as_the_literature_has_it():
    drawn = record([picture({0: "red"})], [sound("red")], [[QUARTERS[0], [0, 0, 1, 0.5]]])
    ious = [next(prepared(drawn, agreement=n).answers(own_space)).box_iou for n in (1, 2)]
    # The answer is the quarter. Of one: the union is a half. Of two: the quarter counts 1, the other quarter 1/2.
    assert ious == pytest.approx([1 / 2, 1 / 1.5])


def test_distractors_are_silence_noise_and_the_sound_half_the_list_away():
    found = prepared(scenes())
    assert found.played.T.tolist() == [[0, 1, 2], [-1, -1, -1], [3, 4, 5], [1, 2, 0]]  # silence cannot be embedded here
    scores = found.score(own_space)
    figures = {f"{kind}/{name}" for kind in ("proposals", "dense") for name in ("cIoU@0.5", "AUC")}
    assert set(scores) == {*figures, "noise/AP", "other_sound/AP"}  # no silence, see above
    cosines = np.array([answer.cosines for answer in found.answers(own_space)])
    assert np.isnan(cosines[:, 1]).all()
    truth = np.repeat([True, False], 3)
    for column, key in ((2, "noise/AP"), (3, "other_sound/AP")):
        assert scores[key].value == average_precision(np.concatenate([cosines[:, 0], cosines[:, column]]), truth)
        assert scores[key].labels.tolist() == truth.tolist()
    assert scores["other_sound/AP"].value == 1  # in each picture the other colour is not, or scores less
    lonely = prepared(record([picture({0: "red"})], [sound("red")], [QUARTERS[0]]))
    assert "other_sound/AP" not in lonely.score(own_space)


def test_silence_is_silent_and_noise_is_not_and_both_are_always_the_same():
    silence, *noises = silence_and_noise()
    assert not silence["array"].any()
    assert [noise["array"].std() for noise in noises] == pytest.approx([0.1] * 8, rel=0.01)
    for one, other in zip(noises, silence_and_noise()[1:], strict=True):
        np.testing.assert_array_equal(one["array"], other["array"])
    assert len({noise["array"].tobytes() for noise in noises}) == 8


def test_items_that_cannot_be_measured_are_left_out_and_the_others_keep_their_places():
    given = scenes()
    fourth, quarter = picture({3: "green"}), QUARTERS[3]
    broken = record(
        ["missing.png", *given.images, fourth, fourth],
        [sound("red"), *given.sounds, "broken", sound("green")],
        [QUARTERS[0], *given.boxes, quarter, SPECK],
    )
    eyes = PatchColour()
    found = prepared(broken, eyes)
    assert found.failed == 3
    assert sorted(found.left_out) == [0, 4, 5]
    assert "missing.png" in found.left_out[0]
    assert found.left_out[4] == "no sound at all."
    assert list(found.regions) == [1, 2, 3]
    assert found.played[:, 0].tolist() == [1, 2, 3]
    assert eyes.embedded == 3 * 4  # no picture for which there is no question
    whole, scores = prepared(given).score(own_space), found.score(own_space)
    for key in ("proposals/cIoU@0.5", "proposals/AUC", "dense/cIoU@0.5", "dense/AUC"):
        assert values(scores, key) == values(whole, key)


@pytest.mark.parametrize(
    ("images", "sounds", "boxes", "reason"),
    [
        (["missing.png"], [sound("red")], [QUARTERS[0]], "missing.png"),
        ([picture({})], ["broken"], [QUARTERS[0]], "no sound at all"),
        ([picture({})], [sound("red")], [SPECK], "no annotator drew a box"),
        ([], [], [], "there are none"),
    ],
)
def test_nothing_to_measure_is_an_error(images, sounds, boxes, reason):
    with pytest.raises(ConfigError, match=reason):
        prepared(record(images, sounds, boxes))


def test_a_cell_of_a_map_stands_at_its_centre_and_holds_beyond_the_outermost():
    """The half-pixel rule: of two cells over eight pixels, the first two and the last two pixels are the cells' own."""
    across = [0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1]
    np.testing.assert_allclose(up_sampled(np.array([[0.0, 1.0]]), (3, 8)), [across] * 3)
    np.testing.assert_allclose(up_sampled(np.array([[0.0], [1.0]]), (8, 3)), np.transpose([across] * 3))


def test_heat_maps_are_written_for_items_spread_over_all(tmp_path, monkeypatch):
    found = prepared(scenes())
    written = write_heatmaps(found, own_space, tmp_path / "maps", limit=2)
    assert [path.name for path in written] == ["00000-item_0.png", "00002-item_2.png"]
    for path in written:
        with Image.open(path) as opened:
            opened.load()
            assert opened.width > 2 * 300
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match="item_0"):
        write_heatmaps(found, own_space, tmp_path / "file", limit=1)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"cmcr\[demo\]"):
        write_heatmaps(found, own_space, tmp_path)


def test_a_heat_map_shows_the_picture_the_map_and_both_kinds_of_boxes():
    found = prepared(scenes())
    answer = next(found.answers(own_space))
    plain, overlaid, scale = draw_heatmap(found.record, answer).axes
    np.testing.assert_array_equal(plain.images[0].get_array(), np.asarray(found.record.images[0]))
    np.testing.assert_array_equal(overlaid.images[1].get_array(), answer.map)
    assert scale.get_ylim() == pytest.approx((answer.map.min(), answer.map.max()))
    for axes in (plain, overlaid):
        corners = {line.get_label(): line.get_xydata()[:4].tolist() for line in axes.lines}
        quarter = [[0, 0], [32, 0], [32, 32], [0, 32]]
        assert corners == {"true box": quarter, "box answered": quarter}

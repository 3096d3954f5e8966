"""Boxes of the grid in closed form, those of a small random detector, and both embedded with a map of the picture."""

import json
import os

import numpy as np
import pytest
import torch
from coloured import QUARTERS, MeanColour, PatchColour, picture
from PIL import Image
from safetensors.torch import save_file

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's client is first imported

from cmcr.errors import ArtefactNotFoundError, FormatError, SampleError
from cmcr.evaluation.tasks import regions
from cmcr.evaluation.tasks.regions import (
    DETECTOR,
    DETECTOR_REVISION,
    crop,
    detector,
    embed_regions,
    grid_boxes,
    window_grid,
    with_whole_picture,
)
from spaces.small_models import write_clip

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8))
WHOLE = [0, 0, 1, 1]


def silent(share):
    """Take progress and show nothing."""


def test_grid_slides_each_shape_from_edge_to_edge():
    boxes = grid_boxes(((0.5, 0.5), (1.0, 0.4)), 0.5)
    halves = [(left, top, left + 0.5, top + 0.5) for top in (0, 0.25, 0.5) for left in (0, 0.25, 0.5)]
    bands = [(0, top, 1, top + 0.4) for top in (0, 0.2, 0.4, 0.6)]
    np.testing.assert_allclose(boxes, [WHOLE, *halves, *bands], atol=1e-12)


@pytest.mark.parametrize(("side", "stride"), [(0.3, 0.5), (0.7, 0.25), (0.1, 1.0), (1 / 3, 0.5)])
def test_grid_steps_are_even_and_never_longer_than_the_stride(side, stride):
    boxes = grid_boxes(((side, side),), stride)[1:]
    steps = np.diff(np.unique(boxes[:, 0].round(12)))
    assert boxes[:, 0].min() == 0
    assert boxes[:, 2].max() == pytest.approx(1)
    assert steps.max() <= side * stride + 1e-9
    assert np.ptp(steps) < 1e-9
    assert len(steps) == np.ceil((1 - side) / (side * stride) - 1e-9)


def test_default_grid_is_small_and_holds_the_whole_picture_once():
    boxes = grid_boxes()
    assert boxes.shape == (1 + 49 + 9 + 4 + 3 + 3, 4)
    assert (boxes == WHOLE).all(axis=1).sum() == 1


def test_boxes_are_made_fit_to_be_answers():
    given = [(-0.2, 0.1, 0.5, 0.6), (0.3, 0.3, 0.305, 0.9), (0.9, 0, 0.4, 1), (-1, -1, 2, 2), (0.5, 0.5, 1.2, 1.0)]
    assert with_whole_picture(given).tolist() == [WHOLE, [0, 0.1, 0.5, 0.6], [0.5, 0.5, 1, 1]]
    assert with_whole_picture([]).tolist() == [WHOLE]


def test_crops_are_rounded_to_pixels_and_never_empty():
    pixels = np.asarray(PICTURE)
    np.testing.assert_array_equal(crop(PICTURE, np.array([0.25, 0.5, 0.75, 1.0])), pixels[24:, 20:60])
    np.testing.assert_array_equal(crop(PICTURE, np.array([0, 0, 0.001, 0.001])), pixels[:1, :1])
    np.testing.assert_array_equal(crop(PICTURE, np.array([0.999, 0.999, 1, 1])), pixels[-1:, -1:])


def test_windows_stand_around_the_centres_of_cells_but_never_leave_the_picture():
    windows, grid = window_grid((2, 4), 0.5)
    assert grid.shape == (2, 4)
    tops, lefts = (0.0, 0.5), (0.0, 0.125, 0.375, 0.5)
    for row, column in np.ndindex(2, 4):
        left, top = lefts[column], tops[row]
        np.testing.assert_allclose(windows[grid[row, column]], [left, top, left + 0.5, top + 0.5])
    windows, grid = window_grid((7, 7), 0.5)
    assert len(windows) == 25  # of 49 cells: those at the edge share the window of their neighbours
    assert set(grid.ravel()) == set(range(25))


def test_patches_and_windows_are_maps_of_one_kind(monkeypatch):
    monkeypatch.setattr(regions, "_PATCHED_PIXELS", 64)
    monkeypatch.setattr(regions, "_CELLS", (8, 8))
    monkeypatch.setattr(regions, "_WINDOW", 0.125)
    pictures = {3: picture({0: "red", 3: "blue"}), 5: picture({1: "green"}, width=128)}
    shares = []
    patches, failed = embed_regions(PatchColour(), pictures, lambda seen: QUARTERS, shares.append)
    windows, also_failed = embed_regions(MeanColour(), pictures, lambda seen: QUARTERS, silent)
    assert failed == also_failed == {}
    assert list(patches) == list(windows) == [3, 5]
    assert shares == [0.5, 1]
    for position in pictures:
        assert patches[position].cells.shape == windows[position].cells.shape == (8, 8, 3)
        assert patches[position].cells.dtype == np.float16
        np.testing.assert_array_equal(patches[position].cells, windows[position].cells)
        np.testing.assert_array_equal(patches[position].crops, windows[position].crops)
    expected = np.array([[1, 0, 0], [1, 1, 1], [1, 1, 1], [0, 0, 1]])
    np.testing.assert_allclose(patches[3].crops, expected / np.linalg.norm(expected, axis=1)[:, None], atol=1e-3)
    assert (patches[3].cells[:4, :4] == [1, 0, 0]).all()


@pytest.mark.parametrize("eyes", [PatchColour, MeanColour])
def test_what_cannot_be_read_or_embedded_is_left_out_and_the_others_keep_their_places(eyes):
    half_black = np.zeros((64, 64, 3), dtype=np.uint8)  # a black crop has no direction
    half_black[:, 32:] = 200

    def boxes(seen):
        if seen.width == 20:
            raise SampleError("cannot be looked at.")
        return QUARTERS

    given = [
        half_black,
        "no-such-picture.png",
        Image.new("RGB", (64, 64)),
        Image.new("RGB", (20, 20)),
        picture({0: "red"}),
    ]
    found, failed = embed_regions(eyes(), dict(enumerate(given)), boxes, silent)
    assert "no-such-picture.png" in failed[1]
    assert failed[3] == "cannot be looked at."
    if eyes is PatchColour:  # windows that fall into the black half make a map with holes
        np.testing.assert_array_equal(found[0].boxes, QUARTERS[[1, 3]])
        assert found[0].crops.shape == (2, 3)
        assert failed[2] == "none of its boxes could be embedded."
    else:
        assert "windows" in failed[0]
    np.testing.assert_allclose(found[4].crops[0], [1, 0, 0], atol=1e-3)


def test_a_published_model_gives_its_own_patches(tmp_path, monkeypatch):
    from cmcr.spaces.dual_encoders import ClipSpace

    monkeypatch.setattr(regions, "_PATCHED_PIXELS", 48)
    clip = ClipSpace(write_clip(tmp_path), device="cpu")
    shown = picture({0: "red", 3: "blue"}, 90, 50)
    found, failed = embed_regions(clip, {0: shown}, lambda seen: QUARTERS, silent)
    assert failed == {}
    np.testing.assert_allclose(found[0].cells, clip.patch_features([shown], 48)[0], atol=5e-4)  # kept in float16


@pytest.fixture(scope="module")
def yolos(tmp_path_factory):
    """A small random detector of the true architecture."""
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessorPil

    folder = tmp_path_factory.mktemp("yolos")
    config = YolosConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=[64, 96],
        patch_size=16, num_detection_tokens=12, num_labels=5,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = YolosForObjectDetection(config).eval()
        torch.nn.init.normal_(model.vit.embeddings.detection_tokens, std=3.0)
        for head in (model.class_labels_classifier, model.bbox_predictor):
            for layer in head.layers:
                torch.nn.init.normal_(layer.weight, std=0.4)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    config.architectures = ["YolosForObjectDetection"]
    config.save_pretrained(folder)
    YolosImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder


def test_detector_boxes_are_those_of_the_model_best_first(yolos, monkeypatch):
    from transformers import YolosForObjectDetection, YolosImageProcessorPil

    inputs = YolosImageProcessorPil.from_pretrained(yolos)(images=PICTURE, return_tensors="pt")
    with torch.no_grad():
        output = YolosForObjectDetection.from_pretrained(yolos).eval()(pixel_values=inputs["pixel_values"])
    scores = output.logits[0].softmax(-1)[:, :-1].amax(-1).numpy()
    x, y, width, height = output.pred_boxes[0].double().numpy().T
    boxes = np.clip(np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1), 0, 1)
    best = np.argsort(-scores)
    for least, most in ((0.0, 4), (float(np.sort(scores)[-2:].mean()), 50), (1.0, 50)):
        monkeypatch.setattr(regions, "_LEAST_SCORE", least)
        monkeypatch.setattr(regions, "_MOST_BOXES", most)
        expected = boxes[[row for row in best if scores[row] > least][:most]]
        np.testing.assert_allclose(detector(yolos)(PICTURE), with_whole_picture(expected), atol=1e-6)


def test_a_picture_that_a_detector_cannot_read_is_a_sample_error(yolos):
    with pytest.raises(SampleError, match="cannot look for objects"):
        detector(yolos)(Image.new("RGB", (3000, 1), "red"))


@pytest.mark.parametrize("kind", ["YolosFeatureExtractor", "YolosImageProcessorFast"])
def test_detector_computes_with_pillow_whatever_class_its_files_name(yolos, tmp_path, kind):
    for path in yolos.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, "image_processor_type": kind}))
    np.testing.assert_array_equal(detector(tmp_path)(PICTURE), detector(yolos)(PICTURE))


def test_a_detector_that_is_not_here_or_not_whole(tmp_path, monkeypatch):
    import huggingface_hub.constants

    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        detector(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ArtefactNotFoundError, match=f"{DETECTOR} --revision {DETECTOR_REVISION}"):
        detector()

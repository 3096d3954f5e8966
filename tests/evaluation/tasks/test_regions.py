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
    with_whole_picture,
)

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8))
WHOLE = [0, 0, 1, 1]


def silent(share):
    """Take progress and show nothing."""


def test_the_grid_slides_each_shape_evenly_from_edge_to_edge():
    starts = {0.25: np.arange(7) / 8, 0.5: np.arange(3) / 4, 0.75: np.array([0, 0.25]), 1.0: np.zeros(1)}
    expected = [WHOLE]
    for width, height in ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75), (0.5, 1.0), (1.0, 0.5)):
        expected += [(left, top, left + width, top + height) for top in starts[height] for left in starts[width]]
    np.testing.assert_allclose(grid_boxes(), expected, atol=1e-12)


def test_boxes_are_made_fit_to_be_answers():
    given = [(-0.2, 0.1, 0.5, 0.6), (0.3, 0.3, 0.305, 0.9), (0.9, 0, 0.4, 1), (-1, -1, 2, 2), (0.5, 0.5, 1.2, 1.0)]
    assert with_whole_picture(given).tolist() == [WHOLE, [0, 0.1, 0.5, 0.6], [0.5, 0.5, 1, 1]]
    assert with_whole_picture([]).tolist() == [WHOLE]


def test_crops_are_rounded_to_pixels_and_never_empty():
    pixels = np.asarray(PICTURE)
    np.testing.assert_array_equal(crop(PICTURE, np.array([0.25, 0.5, 0.75, 1.0])), pixels[24:, 20:60])
    np.testing.assert_array_equal(crop(PICTURE, np.array([0, 0, 0.001, 0.001])), pixels[:1, :1])
    np.testing.assert_array_equal(crop(PICTURE, np.array([0.999, 0.999, 1, 1])), pixels[-1:, -1:])


def test_patches_are_the_spaces_own(monkeypatch):
    monkeypatch.setattr(regions, "_PATCHED_PIXELS", 64)
    pictures, shares = {3: picture({0: "red", 3: "blue"}), 5: picture({1: "green"}, width=128)}, []
    found, failed = embed_regions(PatchColour(), pictures, lambda seen: QUARTERS, shares.append)
    assert failed == {}
    assert list(found) == [3, 5]
    assert shares == [0.5, 1]
    expected = np.array([[1, 0, 0], [1, 1, 1], [1, 1, 1], [0, 0, 1]])
    np.testing.assert_allclose(found[3].crops, expected / np.linalg.norm(expected, axis=1)[:, None], atol=1e-3)
    assert found[3].cells.dtype == np.float16
    for position, shown in pictures.items():
        np.testing.assert_allclose(found[position].cells, PatchColour().patch_features([shown], 64)[0], atol=1e-3)


def test_without_patches_windows_stand_around_the_centres_of_cells_but_never_leave_the_picture():
    shown = picture({0: "red", 3: "blue"}, 280, 140)
    found, _ = embed_regions(MeanColour(), {0: shown}, lambda seen: QUARTERS, silent)
    assert found[0].crops.shape == (4, 3)
    assert found[0].cells.shape == (7, 7, 3)
    for row, column in np.ndindex(7, 7):
        left, top = (np.clip((place + 0.5) / 7 - 0.25, 0, 0.5) for place in (column, row))
        colour = np.asarray(crop(shown, np.array([left, top, left + 0.5, top + 0.5])), dtype=float).mean(axis=(0, 1))
        np.testing.assert_allclose(found[0].cells[row, column], colour / np.linalg.norm(colour), atol=1e-3)


@pytest.mark.parametrize("eyes", [PatchColour, MeanColour])
def test_what_cannot_be_read_or_embedded_is_left_out_and_the_others_keep_their_places(eyes):
    half_black = np.zeros((64, 64, 3), dtype=np.uint8)  # a black crop has no direction
    half_black[:, 32:] = 200

    def boxes(seen):
        if seen.width == 20:
            raise SampleError("cannot be looked at.")
        return QUARTERS

    black, tiny = Image.new("RGB", (64, 64)), Image.new("RGB", (20, 20))
    given = [half_black, "no-such-picture.png", black, tiny, picture({0: "red"})]
    found, failed = embed_regions(eyes(), dict(enumerate(given)), boxes, silent)
    assert "no-such-picture.png" in failed[1]
    assert failed[3] == "cannot be looked at."
    if eyes is PatchColour:  # windows that fall into the black half make a map with holes
        np.testing.assert_array_equal(found[0].boxes, QUARTERS[[1, 3]])
        assert found[0].crops.shape == (2, 3)
        assert "none of its boxes" in failed[2]
    else:
        assert "windows" in failed[0]
    np.testing.assert_allclose(found[4].crops[0], [1, 0, 0], atol=1e-3)


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
    settings["image_processor_type"] = kind
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    np.testing.assert_array_equal(detector(tmp_path)(PICTURE), detector(yolos)(PICTURE))


def test_a_detector_that_is_not_here_or_not_whole(tmp_path, monkeypatch):
    import huggingface_hub.constants

    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        detector(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ArtefactNotFoundError, match=f"{DETECTOR} --revision {DETECTOR_REVISION}"):
        detector()

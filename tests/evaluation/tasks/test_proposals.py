"""Boxes of the grid in closed form, and of a small random detector of the true architecture."""

import json
import os

import numpy as np
import pytest
import torch
from coloured import MeanColour
from PIL import Image
from safetensors.torch import save_file

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's client is first imported

from cmcr.errors import ArtefactNotFoundError, ConfigError, FormatError, SampleError
from cmcr.evaluation.tasks.places import embed_boxes
from cmcr.evaluation.tasks.proposals import (
    DETECTOR,
    DETECTOR_REVISION,
    DetectorProposals,
    GridProposals,
    crop,
    with_whole_picture,
)

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8))
WHOLE = [0, 0, 1, 1]


def test_grid_slides_each_shape_from_edge_to_edge():
    boxes = GridProposals(shapes=((0.5, 0.5), (1.0, 0.4)), stride=0.5).boxes(PICTURE)
    halves = [(left, top, left + 0.5, top + 0.5) for top in (0, 0.25, 0.5) for left in (0, 0.25, 0.5)]
    bands = [(0, top, 1, top + 0.4) for top in (0, 0.2, 0.4, 0.6)]
    np.testing.assert_allclose(boxes, [WHOLE, *halves, *bands], atol=1e-12)


@pytest.mark.parametrize(("side", "stride"), [(0.3, 0.5), (0.7, 0.25), (0.1, 1.0), (1 / 3, 0.5)])
def test_grid_steps_are_even_and_never_longer_than_the_stride(side, stride):
    boxes = GridProposals(shapes=((side, side),), stride=stride).boxes(PICTURE)[1:]
    lefts = np.unique(boxes[:, 0].round(12))
    steps = np.diff(lefts)
    assert lefts[0] == 0
    assert boxes[:, 2].max() == pytest.approx(1)
    assert steps.max() <= side * stride + 1e-9
    assert np.ptp(steps) < 1e-9
    assert len(steps) == np.ceil((1 - side) / (side * stride) - 1e-9)


def test_default_grid_is_small_and_holds_the_whole_picture_once():
    boxes = GridProposals().boxes(PICTURE)
    assert boxes.shape == (1 + 49 + 9 + 4 + 3 + 3, 4)
    assert (boxes == WHOLE).all(axis=1).sum() == 1
    assert GridProposals(shapes=((1.0, 1.0),)).boxes(PICTURE).tolist() == [WHOLE]


def test_wrong_grids_are_refused():
    with pytest.raises(ConfigError, match=r"shapes: expected \(width, height\) from 0.01 to 1, got \(0.5, 1.5\)"):
        GridProposals(shapes=((0.5, 1.5),))
    with pytest.raises(ConfigError, match=r"stride: expected above 0 and up to 1, got 0"):
        GridProposals(stride=0)


def test_boxes_are_made_fit_to_be_answers():
    given = [(-0.2, 0.1, 0.5, 0.6), (0.3, 0.3, 0.305, 0.9), (0.9, 0, 0.4, 1), (-1, -1, 2, 2), (0.5, 0.5, 1.2, 1.0)]
    assert with_whole_picture(given).tolist() == [WHOLE, [0, 0.1, 0.5, 0.6], [0.5, 0.5, 1, 1]]
    assert with_whole_picture([]).tolist() == [WHOLE]


def test_crops_are_rounded_to_pixels_and_never_empty():
    pixels = np.asarray(PICTURE)
    np.testing.assert_array_equal(crop(PICTURE, np.array([0.25, 0.5, 0.75, 1.0])), pixels[24:, 20:60])
    np.testing.assert_array_equal(crop(PICTURE, np.array([0, 0, 0.001, 0.001])), pixels[:1, :1])
    np.testing.assert_array_equal(crop(PICTURE, np.array([0.999, 0.999, 1, 1])), pixels[-1:, -1:])


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
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


def test_detector_boxes_are_those_of_the_model_best_first(detector):
    from transformers import YolosForObjectDetection, YolosImageProcessorPil

    proposals = DetectorProposals(detector, threshold=0.0, top=4, device="cpu")
    inputs = YolosImageProcessorPil.from_pretrained(detector)(images=PICTURE, return_tensors="pt")
    with torch.no_grad():
        output = YolosForObjectDetection.from_pretrained(detector).eval()(pixel_values=inputs["pixel_values"])
    scores = output.logits[0].softmax(-1)[:, :-1].amax(-1).numpy()
    x, y, width, height = output.pred_boxes[0].double().numpy().T
    boxes = np.clip(np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1), 0, 1)
    best = np.argsort(-scores)[:4]
    assert len(with_whole_picture(boxes[best])) == 4  # one is too thin to be an answer
    np.testing.assert_allclose(proposals.boxes(PICTURE), with_whole_picture(boxes[best]), atol=1e-6)
    fewer = DetectorProposals(detector, threshold=float(np.sort(scores)[-2:].mean()), device="cpu")
    np.testing.assert_allclose(fewer.boxes(PICTURE), [WHOLE, boxes[best[0]]], atol=1e-6)
    assert DetectorProposals(detector, threshold=1.0, device="cpu").boxes(PICTURE).tolist() == [WHOLE]
    assert proposals.revision is None


def test_pictures_that_a_detector_cannot_read_are_left_out(detector):
    proposals = DetectorProposals(detector, threshold=0.0, device="cpu")
    strip = Image.new("RGB", (3000, 1), "red")
    with pytest.raises(SampleError, match="cannot look for objects in it"):
        proposals.boxes(strip)
    places, failed = embed_boxes(MeanColour(), [strip, PICTURE], proposals.boxes, lambda share: None)
    assert list(failed) == [0]
    assert places.count(1) == len(proposals.boxes(PICTURE))
    np.testing.assert_array_equal(places.boxes_of(1), proposals.boxes(PICTURE))


def test_detector_computes_with_pillow_whatever_class_its_files_name(detector, tmp_path):
    for name in ("YolosFeatureExtractor", "YolosImageProcessorFast", "YolosImageProcessor"):
        folder = tmp_path / name
        folder.mkdir()
        for path in detector.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        settings = json.loads((folder / "preprocessor_config.json").read_text())
        settings["image_processor_type"] = name
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
        opened = DetectorProposals(folder, device="cpu")
        assert type(opened._processor).__name__ == "YolosImageProcessorPil"


def test_wrong_detectors_are_refused(detector, tmp_path):
    with pytest.raises(ConfigError, match=r"threshold: expected 0 to 1, got 2"):
        DetectorProposals(detector, threshold=2)
    with pytest.raises(ConfigError, match=r"top: expected at least 1, got 0"):
        DetectorProposals(detector, top=0)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        FormatError, match=r"lacks model.safetensors or .*; preprocessor_config.json or .*never from pickl"
    ):
        DetectorProposals(tmp_path)


def test_detector_that_is_not_here_says_what_to_fetch(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ArtefactNotFoundError) as caught:
        DetectorProposals(local_files_only=True)
    assert f"hf download {DETECTOR} --revision {DETECTOR_REVISION} --include 'config.json'" in str(caught.value)

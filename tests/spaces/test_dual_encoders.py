"""CLIP and SigLIP as transformers has them, on small models of the true architectures."""

import json
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import CLIP_LENGTH, SIGLIP_LENGTH, pictures, write_siglip

from cmcr.data.images import to_rgb
from cmcr.errors import ConfigError, FormatError, MissingDependencyError, SampleError
from cmcr.spaces.dual_encoders import ClipSpace, SiglipSpace

transformers = pytest.importorskip("transformers")

TEXTS = ["a cat", "two dogs", "rain!", "four", "2 cats"]
LONG = ["a cat", "cat and rain " * 20, "rain " * 30]
OPEN = {"clip": ClipSpace, "siglip": SiglipSpace}
PREFIX = {"clip": "CLIP", "siglip": "Siglip"}
LENGTH = {"clip": CLIP_LENGTH, "siglip": SIGLIP_LENGTH}


@pytest.fixture(params=["clip", "siglip"])
def name(request):
    return request.param


@pytest.fixture
def space(spaces, name):
    return spaces[name]


@pytest.fixture
def folder(copy_of, name):
    return copy_of(name)


def theirs(spaces, name, part):
    return getattr(transformers, PREFIX[name] + part).from_pretrained(spaces.root / name)


def change_setting(folder, old, new):
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace(old, new))


class TestAsTransformers:
    def test_pictures(self, spaces, space, name):
        given = pictures(12)
        model, processor = theirs(spaces, name, "Model").eval(), theirs(spaces, name, "ImageProcessorPil")
        prepared = processor(images=[to_rgb(picture) for picture in given], return_tensors="pt")
        with torch.no_grad():
            expected = model.get_image_features(**prepared).pooler_output
        rows = space.encode(given, "image", normalize_embeddings=False)
        np.testing.assert_allclose(rows, expected.numpy(), atol=1e-6)

    def test_texts(self, spaces, space, name):
        model, tokenizer = theirs(spaces, name, "Model").eval(), theirs(spaces, name, "Tokenizer")
        padding = True if name == "clip" else "max_length"
        for texts in (TEXTS, LONG):
            given = tokenizer(texts, padding=padding, truncation=True, max_length=LENGTH[name], return_tensors="pt")
            if name == "siglip":
                del given["attention_mask"]  # trained without
            with torch.no_grad():
                expected = model.get_text_features(**given).pooler_output
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # of texts that are cut
                rows = space.encode(texts, "text", normalize_embeddings=False)
            np.testing.assert_allclose(rows, expected.numpy(), atol=1e-5)


class TestPatches:
    def test_features_at_any_size(self, space, name):
        width, drawn = space.widths["image"], pictures(3)
        features = space.patch_features(drawn)
        assert features.shape == (3, 4, 4, width)
        np.testing.assert_allclose(np.linalg.norm(features, axis=-1), np.ones((3, 4, 4)), atol=1e-6)
        finer = space.patch_features(drawn, (64, 40), batch_size=2)
        assert finer.shape == (3, 8, 5, width)
        np.testing.assert_allclose(space.patch_features(drawn[1], (64, 40))[0], finer[1], atol=1e-5)
        assert space.patch_features([], 16).shape == (0, 2, 2, width)
        square = [picture.resize((32, 32)).convert("RGB") for picture in drawn]
        np.testing.assert_allclose(space.patch_features(square, 32), space.patch_features(square), atol=1e-6)

    def test_patches_lie_where_they_do_in_the_picture(self, folder, name):
        space = OPEN[name](folder, device="cpu")
        for parameter, values in space._model.vision_model.encoder.named_parameters():
            if "out_proj" in parameter:
                values.zero_()  # no attention: a patch knows its own pixels and place only
        black_corner = np.full((64, 40, 3), 255, dtype=np.uint8)
        black_corner[:16, :8] = 0
        white = np.full_like(black_corner, 255)
        plain, mixed = space.patch_features([white, black_corner], (64, 40))
        moved = np.linalg.norm(plain - mixed, axis=-1) > 1e-3
        assert np.argwhere(moved).tolist() == [[0, 0], [1, 0]]

    def test_a_clip_token_is_projected_as_the_class_token_is(self, spaces):
        space, drawn = spaces["clip"], pictures(4)
        pixels = torch.from_numpy(np.stack([space._pixels(picture) for picture in drawn]))
        with torch.no_grad():
            hidden = space._model.vision_model(pixel_values=pixels).last_hidden_state
            class_token = space._project_patches(hidden[:, [0, 0]])[:, 0].numpy()  # all but the first are projected
        np.testing.assert_allclose(class_token, space.encode(drawn, "image", normalize_embeddings=False), atol=1e-6)

    def test_a_siglip_picture_of_one_patch_has_the_embedding_of_the_patch(self, tmp_path):
        space = SiglipSpace(write_siglip(tmp_path / "siglip", patch=32), device="cpu")
        features = space.patch_features(pictures(3))
        assert features.shape == (3, 1, 1, 32)
        np.testing.assert_allclose(features[:, 0, 0], space.encode(pictures(3), "image"), atol=1e-6)

    def test_sizes_that_do_not_fit(self, spaces):
        for size in (0, 12, (32, 30), (32,), 32.0):
            with pytest.raises(ConfigError, match="multiples of the 8 pixels"):
                spaces["clip"].patch_features(pictures(1), size)


def test_the_fingerprint_knows_preprocessing_and_precision(space, name, folder):
    half = OPEN[name](folder, device="cpu", dtype="bfloat16")
    rows = half.encode(pictures(4), "image")
    assert (rows * space.encode(pictures(4), "image")).sum(axis=1).min() > 0.99
    change_setting(folder, '"resample": 3', '"resample": 2')
    assert len({space.fingerprint, half.fingerprint, OPEN[name](folder, device="cpu").fingerprint}) == 3


def test_opening_leaves_the_settings_of_the_library_alone(spaces, name, capfd):
    from transformers.utils import logging

    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    OPEN[name](spaces.root / name, device="cpu")
    assert before == (logging.get_verbosity(), logging.is_progress_bar_enabled())
    assert capfd.readouterr() == ("", "")


def test_pictures_of_another_size_than_the_model_reads(folder, name):
    change_setting(folder, "32", "48")
    with pytest.raises(FormatError, match=r"its model reads \(3, 32, 32"):
        OPEN[name](folder)


def test_a_strip_that_would_fill_the_memory_is_refused(spaces):
    with pytest.raises(SampleError, match=r"item 1: .*too narrow"):
        spaces["clip"].encode([pictures(1)[0], Image.new("RGB", (40_000, 1))], "image")
    assert spaces["clip"].encode([Image.new("RGB", (500, 1))], "image").shape == (1, 24)


@pytest.mark.parametrize("name", ["clip"], indirect=True)
def test_settings_of_pictures_in_their_oldest_form_mean_the_same(space, folder):
    path = folder / "preprocessor_config.json"
    now = json.loads(path.read_text())
    kept = ("do_center_crop", "do_normalize", "do_resize", "image_mean", "image_std", "resample")
    old = {"crop_size": 32, "size": 32, "feature_extractor_type": "CLIPFeatureExtractor"}
    path.write_text(json.dumps({**{name: now[name] for name in kept}, **old}))
    opened = ClipSpace(folder, device="cpu")
    assert opened.fingerprint == space.fingerprint
    np.testing.assert_array_equal(opened.encode(pictures(4), "image"), space.encode(pictures(4), "image"))


@pytest.mark.parametrize(("module", "library"), [("sentencepiece", "sentencepiece"), ("google.protobuf", "protobuf")])
def test_the_libraries_of_siglips_tokenizer_are_asked_for(monkeypatch, module, library):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=f"{library} is not installed"):
        SiglipSpace("nowhere")

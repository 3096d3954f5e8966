"""What is particular to CLIP, and its full-size architecture on real pictures."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from published import pictures, reference_demo, write_clip

from cmcr.errors import SampleError
from cmcr.spaces.clip import CLIP_MODEL, CLIP_REVISION, ClipSpace, project_tokens

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    return ClipSpace(write_clip(tmp_path_factory.mktemp("published") / "clip"), device="cpu")


def test_the_class_token_carried_as_the_patches_are_is_the_embedding_of_the_picture(space):
    drawn = pictures(4)
    pixels = torch.from_numpy(np.stack([space._pixels(picture) for picture in drawn]))
    with torch.no_grad():
        hidden = space._model.vision_model(pixel_values=pixels).last_hidden_state
        tokens = project_tokens(space._model, hidden).numpy()
    rows = space.encode(drawn, "image", normalize_embeddings=False)
    np.testing.assert_allclose(tokens[:, 0], rows, atol=1e-6)
    patches = tokens[:, 1:] / np.linalg.norm(tokens[:, 1:], axis=-1, keepdims=True)
    np.testing.assert_allclose(space.patch_features(drawn).reshape(4, 16, 24), patches, atol=1e-6)


def test_padding_does_not_reach_the_embedding(space):
    alone = space.encode(["cat"], "text")
    np.testing.assert_allclose(space.encode(["cat", "two cats then"], "text")[:1], alone, atol=1e-6)


def test_a_strip_that_would_fill_the_memory_is_refused(space):
    with pytest.raises(SampleError, match=r"item 1: a picture of 40000 x 1 pixels is too narrow a strip"):
        space.encode([pictures(1)[0], Image.new("RGB", (40_000, 1))], "image")
    assert space.encode([Image.new("RGB", (500, 1))], "image").shape == (1, 24)


def test_settings_of_pictures_in_their_oldest_form_mean_the_same(space, tmp_path):
    folder = write_clip(tmp_path / "old")
    settings_file = folder / "preprocessor_config.json"
    now = json.loads(settings_file.read_text())
    kept = ("do_center_crop", "do_normalize", "do_resize", "image_mean", "image_std", "resample")
    old = {"crop_size": 32, "size": 32, "feature_extractor_type": "CLIPFeatureExtractor"}
    settings_file.write_text(json.dumps({**{name: now[name] for name in kept}, **old}))
    opened = ClipSpace(folder, device="cpu")
    assert opened.fingerprint == space.fingerprint
    np.testing.assert_array_equal(opened.encode(pictures(4), "image"), space.encode(pictures(4), "image"))


def test_the_default_model_is_pinned():
    assert CLIP_MODEL == "openai/clip-vit-base-patch32"
    assert len(CLIP_REVISION) == 40


def test_a_real_picture_goes_through_the_full_size_architecture(tmp_path):
    demo = reference_demo()
    folder = tmp_path / "clip-vit-base-patch32"
    # The published sizes are the defaults of transformers; the vocabulary is that of the small tokenizer.
    published = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    text = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
    vision = {**published, "image_size": 224, "patch_size": 32}
    write_clip(folder, vision=vision, text={**text, "max_position_embeddings": 77}, width=512)
    space = ClipSpace(folder, device="cpu")
    (folder / "model.safetensors").unlink()
    files = [demo / f"{name}.jpeg" for name in ("BBQ", "toilet", "train")]
    rows = space.encode(files, "image", batch_size=2)
    assert rows.shape == (3, 512)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.ones(3), atol=1e-6)
    np.testing.assert_allclose(space.encode(files[::-1], "image")[::-1], rows, atol=1e-5)
    assert (rows @ rows.T)[~np.eye(3, dtype=bool)].max() < 1 - 1e-4
    assert space.encode(["a train"], "text").shape == (1, 512)
    assert space.patch_features(files[2:], (320, 480)).shape == (1, 10, 15, 512)

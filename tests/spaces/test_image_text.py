"""CLIP and SigLIP as transformers has them, on small models of the true architectures."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from published import pictures, write_clip, write_siglip

from cmcr.data.images import to_rgb
from cmcr.errors import ConfigError, FormatError, SampleError
from cmcr.spaces.clip import ClipSpace
from cmcr.spaces.image_text import pooled
from cmcr.spaces.siglip import SiglipSpace

pytest.importorskip("transformers")

NAMES = ("clip", "siglip")
TEXTS = ["a cat", "two dogs", "rain!", "four", "2 cats", "roof and train"]
OPEN = {"clip": ClipSpace, "siglip": SiglipSpace}
WRITE = {"clip": write_clip, "siglip": write_siglip}
WIDTH = {"clip": 24, "siglip": 32}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: WRITE[name](tmp_path_factory.mktemp("published") / name) for name in NAMES}


@pytest.fixture(scope="module")
def spaces(folders):
    return {name: OPEN[name](folders[name], device="cpu") for name in NAMES}


def items(modality):
    return TEXTS if modality == "text" else pictures(6)


def theirs(name, folder):
    """The model, image processor and tokenizer as transformers opens them."""
    import transformers

    prefix = {"clip": "CLIP", "siglip": "Siglip"}[name]
    model = getattr(transformers, f"{prefix}Model").from_pretrained(folder, dtype=torch.float32).eval()
    processor = getattr(transformers, f"{prefix}ImageProcessorPil").from_pretrained(folder)
    return model, processor, getattr(transformers, f"{prefix}Tokenizer").from_pretrained(folder)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("name", NAMES)
class TestParity:
    def test_embeddings_are_those_of_the_model_called_directly(self, spaces, folders, name, modality):
        model, processor, tokenizer = theirs(name, folders[name])
        with torch.no_grad():
            if modality == "image":
                given = processor(images=[to_rgb(picture) for picture in pictures(6)], return_tensors="pt")
                expected = model.get_image_features(**given).pooler_output
            elif name == "clip":
                expected = model.get_text_features(**tokenizer(TEXTS, padding=True, return_tensors="pt")).pooler_output
            else:
                ids = tokenizer(TEXTS, padding="max_length", max_length=16, return_tensors="pt")["input_ids"]
                expected = model.get_text_features(input_ids=ids).pooler_output
        rows = spaces[name].encode(items(modality), modality)
        np.testing.assert_allclose(rows, unit(expected.numpy()), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
class TestBoth:
    def test_pictures_are_prepared_as_transformers_does_bit_for_bit(self, spaces, folders, name):
        _, processor, _ = theirs(name, folders[name])
        for picture in pictures(12):
            expected = processor(images=picture, return_tensors="np")["pixel_values"][0]
            np.testing.assert_array_equal(spaces[name]._pixels(picture), expected)
            assert expected.dtype == np.float32

    def test_texts_that_are_too_long_are_cut_as_transformers_does_and_said_once(self, spaces, folders, name):
        _, _, tokenizer = theirs(name, folders[name])
        texts = ["a cat", "cat and rain " * 20, "rain " * 30]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows = spaces[name].encode(texts, "text", batch_size=1)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        length = spaces[name]._length
        assert str(caught[0].message) == (
            f"{name}: 2 text(s) are longer than the {length} tokens that this encoder reads; the rest of each was not "
            f"embedded. One begins with {texts[1][:40]!r}."
        )
        expected = tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )["input_ids"]  # fmt: skip
        cut = spaces[name]._padded(spaces[name]._tokens(texts))["input_ids"]
        np.testing.assert_array_equal(cut.numpy(), expected.numpy())
        assert np.isfinite(rows).all()

    def test_texts_that_say_nothing_or_are_no_text(self, spaces, name):
        for blank in ("", " \n\t"):
            with pytest.raises(SampleError, match=r"item 1: a text: (empty|white space only)"):
                spaces[name].encode(["a cat", blank], "text")
        with pytest.raises(SampleError, match=r"item 0: a text: holds a lone surrogate .* at character 2"):
            spaces[name].encode(["a \ud800"], "text")
        assert np.isfinite(spaces[name].encode(["naïve — 東京 🙂"], "text", device="cpu")).all()

    def test_what_is_transparent_shows_white(self, spaces, name):
        clear = Image.fromarray(np.zeros((40, 40, 4), dtype=np.uint8))
        white = Image.new("RGB", (40, 40), "white")
        rows = spaces[name].encode([clear, white], "image")
        np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)

    def test_patch_features_at_any_size(self, spaces, name):
        space, drawn = spaces[name], pictures(3)
        features = space.patch_features(drawn)
        assert features.shape == (3, 4, 4, WIDTH[name])
        assert features.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(features, axis=-1), np.ones((3, 4, 4)), atol=1e-6)
        finer = space.patch_features(drawn, (64, 40), batch_size=2)
        assert finer.shape == (3, 8, 5, WIDTH[name])
        np.testing.assert_allclose(space.patch_features(drawn[1], (64, 40))[0], finer[1], atol=1e-5)
        assert space.patch_features([], 16).shape == (0, 2, 2, WIDTH[name])
        square = [picture.resize((32, 32)).convert("RGB") for picture in drawn]
        np.testing.assert_allclose(space.patch_features(square, 32), space.patch_features(square), atol=1e-6)

    def test_the_patches_of_a_picture_lie_where_they_do_in_it(self, folders, name):
        space = OPEN[name](folders[name], device="cpu")
        for parameter, values in space._model.vision_model.encoder.named_parameters():
            if "out_proj" in parameter:
                values.zero_()  # no attention: a patch knows its own pixels and place only
        black_corner = np.full((64, 40, 3), 255, dtype=np.uint8)
        black_corner[:16, :8] = 0
        white = np.full_like(black_corner, 255)
        plain, mixed = space.patch_features([white, black_corner], (64, 40))
        moved = np.linalg.norm(plain - mixed, axis=-1) > 1e-3
        assert np.argwhere(moved).tolist() == [[0, 0], [1, 0]]

    @pytest.mark.parametrize("size", [0, 12, (32, 30), (32,), 32.0, True, (8, 8, 8)])
    def test_patch_sizes_that_do_not_fit(self, spaces, name, size):
        with pytest.raises(ConfigError, match="size: expected multiples of the 8 pixels of a patch"):
            spaces[name].patch_features(pictures(1), size)

    def test_the_fingerprint_knows_weights_preprocessing_and_precision(self, spaces, folders, tmp_path, name):
        first = spaces[name].fingerprint
        assert OPEN[name](folders[name], device="cpu").fingerprint == first
        assert OPEN[name](folders[name], device="cpu", dtype="bfloat16").fingerprint != first
        other = WRITE[name](tmp_path / "other", seed=1)
        assert OPEN[name](other, device="cpu").fingerprint != first
        again = WRITE[name](tmp_path / "again")
        assert OPEN[name](again, device="cpu").fingerprint == first
        settings_file = again / "preprocessor_config.json"
        settings_file.write_text(settings_file.read_text().replace('"resample": 3', '"resample": 2'))
        assert OPEN[name](again, device="cpu").fingerprint != first

    def test_half_precision_stays_near(self, spaces, folders, name):
        half = OPEN[name](folders[name], device="cpu", dtype="bfloat16")
        rows = half.encode(pictures(4), "image")
        assert rows.dtype == np.float32
        assert (rows * spaces[name].encode(pictures(4), "image")).sum(axis=1).min() > 0.99

    def test_opening_leaves_the_random_state_and_the_library_settings_alone(self, folders, name):
        from transformers.utils import logging

        before = (torch.get_rng_state(), logging.get_verbosity(), logging.is_progress_bar_enabled())
        OPEN[name](folders[name], device="cpu")
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1:] == (logging.get_verbosity(), logging.is_progress_bar_enabled())

    def test_pictures_of_another_size_than_the_model_reads(self, tmp_path, name):
        folder = WRITE[name](tmp_path / name)
        settings_file = folder / "preprocessor_config.json"
        settings_file.write_text(settings_file.read_text().replace("32", "48"))
        with pytest.raises(
            FormatError, match=r"makes pictures of shape \(3, 48, 48\), but its model reads \(3, 32, 32"
        ):
            OPEN[name](folder)


def test_pooled_takes_what_both_versions_of_transformers_return():
    rows = torch.ones(2, 3)
    assert pooled(rows) is rows
    assert pooled(type("Output", (), {"pooler_output": rows})) is rows

"""The dual encoders of transformers, on small models of the true architectures."""

import json
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_dual_encoders import DUAL_ENCODERS, write_aimv2
from small_models import CLIP_LENGTH, SIGLIP_LENGTH, pictures, write_siglip

import cmcr
from cmcr.data.images import to_rgb
from cmcr.errors import ConfigError, FormatError, MissingDependencyError
from cmcr.spaces.dual_encoders import NAMES

transformers = pytest.importorskip("transformers")

TEXTS = ["a cat", "two dogs", "rain!", "four", "2 cats"]
LONG = ["a cat", "cat and rain " * 20, "rain " * 30]
KINDS = ("clip", "siglip", *DUAL_ENCODERS)
PATCHED = ("clip", "siglip", "siglip2", "tipsv2", "metaclip2", "chinese-clip", "altclip")
AS_SIGLIP = ("siglip", "siglip2", "siglip2-naflex")
LENGTH = {"clip": CLIP_LENGTH, "groupvit": CLIP_LENGTH, "siglip": SIGLIP_LENGTH}


@pytest.fixture(params=["clip", "siglip"])
def name(request):
    return request.param


@pytest.fixture
def space(spaces, name):
    return spaces[name]


@pytest.fixture
def folder(copy_of, name):
    return copy_of(name)


def reopened(folder, name, **options):
    return cmcr.space(name, model=folder, device="cpu", **options)


def change_setting(folder, old, new):
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("kind", KINDS)
class TestAsTransformers:
    def test_pictures(self, spaces, kind):
        space, given = spaces[kind], pictures(12)
        if kind == "tipsv2":  # its processor needs torchvision: resized with corners apart, and scaled to [0, 1]
            resized = [to_rgb(picture).resize((32, 32), Image.Resampling.BILINEAR) for picture in given]
            pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in resized])).permute(0, 3, 1, 2)
            prepared = {"pixel_values": pixels.float() / 255}
        else:
            processor = transformers.AutoImageProcessor.from_pretrained(spaces.root / kind, backend="pil")
            prepared = processor(images=[to_rgb(picture) for picture in given], return_tensors="pt")
        model = transformers.AutoModel.from_pretrained(spaces.root / kind).eval()
        with torch.no_grad():
            expected = model.get_image_features(**prepared).pooler_output
        np.testing.assert_allclose(space.encode(given, "image", normalize_embeddings=False), expected, atol=1e-5)

    def test_texts(self, spaces, kind):
        model = transformers.AutoModel.from_pretrained(spaces.root / kind).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(spaces.root / kind)
        options = {
            "padding": "max_length" if kind in (*AS_SIGLIP, "tipsv2", "align") else True,
            "padding_side": "right",
        }
        for texts in (TEXTS, LONG):
            given = tokenizer(texts, truncation=True, max_length=LENGTH.get(kind, 64), return_tensors="pt", **options)
            if kind in AS_SIGLIP:
                del given["attention_mask"]  # trained without
            with torch.no_grad():
                expected = model.get_text_features(**given).pooler_output
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # of texts that are cut
                rows = spaces[kind].encode(texts, "text", normalize_embeddings=False)
            np.testing.assert_allclose(rows, expected, atol=1e-5)

    def test_the_temperature_is_the_one_that_the_model_multiplies_by(self, spaces, kind):
        state = load_file(spaces.root / kind / "model.safetensors")
        trained = 1 / state["logit_scale"].exp() if "logit_scale" in state else state["temperature"]
        assert spaces[kind].temperature == pytest.approx(float(trained), rel=1e-6)


def test_the_temperature_does_not_depend_on_the_precision(spaces, name):
    assert reopened(spaces.root / name, name, dtype="bfloat16").temperature == spaces[name].temperature


def test_a_tokenizer_that_knows_no_length_leaves_room_for_the_positions_behind_the_padding(copy_of):
    folder = copy_of("altclip")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["model_max_length"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.warns(UserWarning, match="longer than the 64 tokens"):
        assert reopened(folder, "altclip").encode(LONG, "text").shape == (3, 24)


def test_files_that_are_missing_or_of_no_use(copy_of):
    folder = copy_of("clip")
    (folder / "preprocessor_config.json").write_text("[]")
    with pytest.raises(FormatError, match=r"preprocessor_config\.json cannot be read"):
        reopened(folder, "clip")
    (folder / "config.json").unlink()
    with pytest.raises(FormatError, match=r"lacks config\.json"):
        reopened(folder, "clip")


@pytest.mark.parametrize("kind", ["siglip", "siglip2", "siglip2-naflex", "tipsv2"])
def test_capital_letters_count_only_where_they_did_in_training(spaces, kind):
    rows = spaces[kind].encode(["A CAT", "a cat"], "text")
    np.testing.assert_array_equal(rows[0], rows[1])


def test_the_short_names_stand_for_architectures(spaces):
    assert {"clip", "siglip", "siglip2", "clap"} == set(NAMES)
    for kind in ("siglip2", "siglip2-naflex"):
        assert cmcr.space("siglip2", model=spaces.root / kind, device="cpu").name == "siglip2"
    assert spaces["metaclip2"].name == "metaclip2"  # of a folder its last part
    assert reopened(spaces.root / "metaclip2", "mine").name == "mine"
    with pytest.raises(FormatError, match="siglip or siglip2, got 'clip'"):
        cmcr.space("siglip2", model=spaces.root / "clip")


class TestBrokenTowers:
    def test_a_constant_text_tower_is_found(self, copy_of):
        folder = copy_of("clip")
        weights = load_file(folder / "model.safetensors")
        weights["text_model.final_layer_norm.weight"] *= 1e-3
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(FormatError, match=r"constant: 4 unlike texts have a mean cosine of (1\.0|0\.99)"):
            cmcr.space(str(folder), device="cpu")

    @pytest.mark.parametrize("part", ["text", "visual"])
    @pytest.mark.parametrize("value", [0.0, float("nan")])
    def test_rows_that_are_no_embeddings(self, copy_of, part, value):
        folder = copy_of("clip")
        weights = load_file(folder / "model.safetensors")
        weights[f"{part}_projection.weight"] *= value
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(FormatError, match="NaN, infinite or zero"):
            cmcr.space(str(folder), device="cpu")

    def test_one_that_is_known_is_refused_by_its_name(self):
        with pytest.raises(FormatError, match=r"text tower is constant.*larger_clap_general"):
            cmcr.space("laion/larger_clap_music")

    def test_texts_that_change_with_their_neighbours(self, tmp_path):
        write_aimv2(tmp_path / "aimv2")
        with pytest.raises(FormatError, match="changes with its neighbours"):
            cmcr.space(str(tmp_path / "aimv2"), device="cpu")


class TestPatches:
    @pytest.mark.parametrize("kind", PATCHED)
    def test_features_at_any_size(self, spaces, kind):
        space, drawn = spaces[kind], pictures(3)
        width = space.widths["image"]
        assert space.patch_size == 8
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
        space = reopened(folder, name)
        for parameter, values in space._model.vision_model.encoder.named_parameters():
            if "out_proj" in parameter:
                values.zero_()  # no attention: a patch knows its own pixels and place only
        black_corner = np.full((64, 40, 3), 255, dtype=np.uint8)
        black_corner[:16, :8] = 0
        white = np.full_like(black_corner, 255)
        plain, mixed = space.patch_features([white, black_corner], (64, 40))
        moved = np.linalg.norm(plain - mixed, axis=-1) > 1e-3
        assert np.argwhere(moved).tolist() == [[0, 0], [1, 0]]

    @pytest.mark.parametrize("kind", ["clip", "metaclip2", "chinese-clip", "altclip"])
    def test_a_clip_token_is_projected_as_the_class_token_is(self, spaces, kind, monkeypatch):
        space, drawn = spaces[kind], pictures(4)
        vision, forward = space._model.vision_model, type(space._model.vision_model).forward

        def repeating_the_class_token(*args, **options):
            output = forward(vision, *args, **options)
            output.last_hidden_state = output.last_hidden_state[:, [0] * 17]
            return output

        whole = space.encode(drawn, "image")
        monkeypatch.setattr(vision, "forward", repeating_the_class_token)
        np.testing.assert_allclose(space.patch_features(drawn)[:, 3, 3], whole, atol=1e-6)

    def test_a_model_without_patches(self, spaces):
        assert spaces["align"].patch_size is None
        for kind in ("align", "clap-fused"):
            with pytest.raises(ConfigError, match=r"no (patches|pictures)"):
                spaces[kind].patch_features(pictures(1))

    def test_a_siglip_picture_of_one_patch_has_the_embedding_of_the_patch(self, tmp_path):
        space = reopened(write_siglip(tmp_path / "siglip", patch=32), "siglip")
        features = space.patch_features(pictures(3))
        assert features.shape == (3, 1, 1, 32)
        np.testing.assert_allclose(features[:, 0, 0], space.encode(pictures(3), "image"), atol=1e-6)

    def test_sizes_that_do_not_fit(self, spaces):
        for size in (0, 12, (32, 30), (32,), 32.0):
            with pytest.raises(ConfigError, match="multiples of the 8 pixels"):
                spaces["clip"].patch_features(pictures(1), size)


def test_the_fingerprint_knows_preprocessing_and_precision(space, name, folder):
    half = reopened(folder, name, dtype="bfloat16")
    rows = half.encode(pictures(4), "image")
    assert (rows * space.encode(pictures(4), "image")).sum(axis=1).min() > 0.99
    change_setting(folder, '"resample": 3', '"resample": 2')
    assert len({space.fingerprint, half.fingerprint, reopened(folder, name).fingerprint}) == 3


def test_opening_leaves_the_settings_of_the_library_alone(spaces, name, capfd):
    from transformers.utils import logging

    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    reopened(spaces.root / name, name)
    assert before == (logging.get_verbosity(), logging.is_progress_bar_enabled())
    assert capfd.readouterr() == ("", "")


def test_pictures_of_another_size_than_the_model_reads(folder, name):
    change_setting(folder, "32", "48")
    with pytest.raises(FormatError, match="not of one model"):
        reopened(folder, name)


@pytest.mark.parametrize("kind", ["feature_extractor_type", "image_processor_type"])
def test_settings_of_pictures_in_their_oldest_form_mean_the_same(spaces, copy_of, kind):
    folder = copy_of("clip")
    path = folder / "preprocessor_config.json"
    now = json.loads(path.read_text())
    kept = ("do_center_crop", "do_normalize", "do_resize", "image_mean", "image_std", "resample")
    old = {"crop_size": 32, "size": 32, kind: "CLIPFeatureExtractor"}
    path.write_text(json.dumps({**{name: now[name] for name in kept}, **old}))
    opened = reopened(folder, "clip")
    assert opened.fingerprint == spaces["clip"].fingerprint
    np.testing.assert_array_equal(opened.encode(pictures(4), "image"), spaces["clip"].encode(pictures(4), "image"))


@pytest.mark.parametrize(("module", "library"), [("sentencepiece", "sentencepiece"), ("google.protobuf", "protobuf")])
def test_the_libraries_of_siglips_tokenizer_are_asked_for(spaces, monkeypatch, module, library):
    assert spaces["siglip"]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=f"{library} is not installed"):
        reopened(spaces.root / "siglip", "siglip")

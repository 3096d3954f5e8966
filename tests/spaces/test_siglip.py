"""What is particular to SigLIP."""

import sys

import numpy as np
import pytest
from published import pictures, write_siglip

from cmcr.errors import FormatError, MissingDependencyError
from cmcr.spaces.siglip import SiglipSpace

pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")


def test_texts_are_padded_to_the_full_length_without_a_mask(tmp_path):
    space = SiglipSpace(write_siglip(tmp_path / "siglip"), device="cpu")
    given = space._padded(space._tokens(["a cat", "rain"]))
    assert list(given) == ["input_ids"]
    assert given["input_ids"].shape == (2, 16)


def test_the_patch_of_a_picture_of_one_patch_is_the_embedding_of_the_picture(tmp_path):
    space = SiglipSpace(write_siglip(tmp_path / "siglip", patch=32), device="cpu")
    features = space.patch_features(pictures(3))
    assert features.shape == (3, 1, 1, 32)
    np.testing.assert_allclose(features[:, 0, 0], space.encode(pictures(3), "image"), atol=1e-6)


@pytest.mark.parametrize(("module", "library"), [("sentencepiece", "sentencepiece"), ("google.protobuf", "protobuf")])
def test_the_libraries_of_its_tokenizer_are_asked_for(monkeypatch, module, library):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"{library} is not installed; .*pip install 'cmcr\[encoders\]'"):
        SiglipSpace("nowhere")


def test_a_model_with_another_tokenizer_is_refused(tmp_path):
    folder = write_siglip(tmp_path / "siglip2")
    (folder / "spiece.model").unlink()
    with pytest.raises(FormatError, match=r"not a whole model, .*siglip2 lacks spiece\.model"):
        SiglipSpace(folder)

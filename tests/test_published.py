"""Published projector files: their outputs, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import cmcr
import reference.projectors as twin
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import CLAP_CLIP_SHAPE
from cmcr.errors import ArtefactNotFoundError, FormatError

FOUND = [
    p / "shared/fixtures/projectors" for p in Path(__file__).parents if (p / "shared/fixtures/projectors").is_dir()
]


@pytest.mark.skipif(not FOUND, reason="no folder shared/fixtures/projectors above the tests: the published files")
@pytest.mark.parametrize(
    ("file", "heads", "overlap"),
    [
        ("ulip_clip.pt", {"clip": "Head_A", "ulip": "Head_B"}, "image"),
        ("clap_clip.random.pt", {"clip": "Head_B", "clap": "Head_A"}, "text"),
    ],
)
def test_published_files_give_the_published_outputs_before_and_after_saving(tmp_path, file, heads, overlap):
    connection = cmcr.import_published(FOUND[0] / file)
    connection.save(tmp_path / "saved")
    samples = load_file(FOUND[0] / f"{file.split('.')[0]}.expected.safetensors")
    weights = torch.load(FOUND[0] / file, weights_only=True)
    for candidate in (connection, cmcr.load(tmp_path / "saved")):
        assert tuple(space.name for space in candidate.spaces) == tuple(heads)
        assert candidate.overlap == overlap
        for space in heads:
            projected = candidate.project(samples[space], space)
            np.testing.assert_allclose(projected, samples[f"{space}_projected"], atol=1e-6)
    for space, head in heads.items():  # and the twin reads the same file
        layers = twin.layers_from(twin.published_names(weights, head), final_relu=overlap == "image")
        np.testing.assert_allclose(twin.project(samples[space], layers), samples[f"{space}_projected"], atol=1e-6)


def published_state():
    state = {}
    for head in ("Head_A", "Head_B"):
        for key, value in Projector(512, CLAP_CLIP_SHAPE).state_dict().items():
            part, depth, rest = key.split(".")
            state[f"{head}.net{int(depth) + 1}.{0 if part == 'linears' else 1}.{rest}"] = value
    return state


def test_head_a_is_clap_and_head_b_is_clip_whatever_the_prefix(tmp_path):
    state = published_state()
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "a.pt")
    projectors = cmcr.import_published(tmp_path / "a.pt").projectors
    assert torch.equal(projectors["clap"].linears[0].weight, state["Head_A.net1.0.weight"])
    assert torch.equal(projectors["clip"].norms[1].running_var, state["Head_B.net2.1.running_var"])


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("code from the file was run",))


def test_files_that_are_not_published_projectors_are_refused(tmp_path):
    with pytest.raises(ArtefactNotFoundError, match="Expected a projector file"):
        cmcr.import_published(tmp_path / "none.pt")
    path = tmp_path / "a.pt"
    for content in (b"hello", b"", pickle.dumps(Evil(), protocol=2)):
        path.write_bytes(content)
        with pytest.raises(FormatError, match="never"):
            cmcr.import_published(path)
    missing, other = published_state(), published_state()
    del missing["Head_B.net2.1.running_mean"]
    other["Head_A.net1.0.weight"] = torch.zeros(7, 512)
    for state, message in (
        ({"Head_A": Evil()}, "never"),
        ([1, 2], "expected tensors by name"),
        (missing, r"Head_B is not a published projector .*norms\.1\.running_mean"),
        (other, r"Head_A is not .*\[7, 512\].*\[1024, 512\]"),
    ):
        torch.save(state, path)
        with pytest.raises(FormatError, match=message):
            cmcr.import_published(path)

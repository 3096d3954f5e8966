"""Published projector files: their outputs, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import cmcr
from cmcr.connection.projectors import CLAP_CLIP_SHAPE, Projector
from cmcr.errors import ArtefactNotFoundError, FormatError

FOUND = [
    p / "shared/fixtures/projectors" for p in Path(__file__).parents if (p / "shared/fixtures/projectors").is_dir()
]


@pytest.mark.skipif(
    not FOUND, reason="no folder shared/fixtures/projectors above the tests: the published files lie there"
)
@pytest.mark.parametrize(
    ("file", "expected", "spaces", "overlap"),
    [
        ("ulip_clip.pt", "ulip_clip", ("clip", "ulip"), "image"),
        ("clap_clip.random.pt", "clap_clip", ("clip", "clap"), "text"),
    ],
)
def test_published_files_give_the_published_outputs_before_and_after_saving(tmp_path, file, expected, spaces, overlap):
    connection = cmcr.import_published(FOUND[0] / file)
    connection.save(tmp_path / "saved")
    reference = load_file(FOUND[0] / f"{expected}.expected.safetensors")
    for candidate in (connection, cmcr.load(tmp_path / "saved")):
        assert tuple(space.name for space in candidate.spaces) == spaces
        assert candidate.overlap == overlap
        for space in spaces:
            projected = candidate.project(reference[space], space)
            np.testing.assert_allclose(projected, reference[f"{space}_projected"], atol=1e-6)


def published_state(heads=("Head_A", "Head_B")):
    torch.manual_seed(0)
    state = {}
    for head in heads:
        for key, value in Projector(512, CLAP_CLIP_SHAPE).state_dict().items():
            part, depth, rest = key.split(".")
            state[f"{head}.net{int(depth) + 1}.{0 if part == 'linears' else 1}.{rest}"] = value
    return state


def test_head_a_is_clap_and_head_b_is_clip_whatever_the_prefix(tmp_path):
    state = published_state()
    torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "a.pt")
    connection = cmcr.import_published(tmp_path / "a.pt")
    assert torch.equal(connection.projectors["clap"].linears[0].weight, state["Head_A.net1.0.weight"])
    assert torch.equal(connection.projectors["clip"].linears[1].weight, state["Head_B.net2.0.weight"])
    assert torch.equal(connection.projectors["clip"].norms[1].running_var, state["Head_B.net2.1.running_var"])


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("code from the file was run",))


def test_files_that_are_not_published_projectors_are_refused(tmp_path):
    with pytest.raises(ArtefactNotFoundError, match="there is no projector file here"):
        cmcr.import_published(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    torch.save({"Head_A": Evil()}, tmp_path / "evil2.pt")
    for name in ("text.pt", "empty.pt", "evil.pt", "evil2.pt"):
        with pytest.raises(FormatError, match=rf"{name}: not a published projector file"):
            cmcr.import_published(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(FormatError, match="expected a dictionary of tensors, got list"):
        cmcr.import_published(tmp_path / "list.pt")


def test_missing_and_misshapen_weights_are_named(tmp_path):
    state = published_state()
    del state["Head_B.net2.1.running_mean"]
    torch.save(state, tmp_path / "missing.pt")
    with pytest.raises(
        FormatError, match=r"Head_B is not a published projector of clap and clip.*norms\.1\.running_mean"
    ):
        cmcr.import_published(tmp_path / "missing.pt")
    state = published_state()
    state["Head_A.net1.0.weight"] = torch.zeros(7, 512)
    torch.save(state, tmp_path / "shape.pt")
    with pytest.raises(FormatError, match=r"Head_A is not .*\[7, 512\].*\[1024, 512\]"):
        cmcr.import_published(tmp_path / "shape.pt")

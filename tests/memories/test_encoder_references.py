"""What a memory keeps of its encoder: rows of fixed inputs, compared before rows are added and by `cmcr verify`."""

import json

import numpy as np
import pytest

import cmcr
from cmcr.artefacts import verify
from cmcr.connection.references import reference_inputs
from cmcr.errors import IntegrityError
from cmcr.files import write_manifest
from cmcr.spaces.mini.space import MiniSpace

TEXTS = [f"number {number}" for number in range(100, 148)]


def embedded(folder, texts, space="mini-clip", **options):
    path = folder / "texts.txt"
    path.write_text("".join(text + "\n" for text in texts))
    return cmcr.embed(space, "text", path, folder / "memory", **options)


@pytest.fixture
def memory(tmp_path):
    return embedded(tmp_path, TEXTS)


@pytest.fixture
def broken():
    space = MiniSpace("mini-clip")
    space._networks["text"].head.weight.neg_()
    return space


def test_a_memory_keeps_what_its_encoder_makes_of_fixed_inputs(memory):
    rows = cmcr.space("mini-clip").encode(reference_inputs("text"), "text")
    np.testing.assert_allclose(memory.references, rows, atol=1e-6)
    assert verify(memory.folders[0])["encoders_compared"] == ["text of mini-clip"]


def test_another_encoder_under_the_same_fingerprint_is_found(memory, broken, tmp_path):
    for use in (
        lambda: verify(memory.folders[0], encoders=[broken]),
        lambda: embedded(tmp_path, [*TEXTS, "one more"], broken, append=True),
    ):
        with pytest.raises(IntegrityError, match="the text encoder of 'mini-clip'"):
            use()
    more = embedded(tmp_path, [*TEXTS, "one more"], append=True)
    assert len(more) == 49
    np.testing.assert_array_equal(more.references, memory.references)


def test_a_connection_of_memories_keeps_them(memory, broken, tmp_path):
    rng = np.random.default_rng(0)
    left = cmcr.Memories("mini-clip", text=memory, image=rng.normal(size=(9, 128)))
    right = cmcr.Memories("own", text=rng.normal(size=(48, 8)), audio=rng.normal(size=(9, 8)))
    cmcr.connect(left, right, method="ridge", device="cpu").save(tmp_path / "connection")
    connection = cmcr.load(tmp_path / "connection")
    np.testing.assert_array_equal(connection.references["mini-clip"]["text"], memory.references)
    with pytest.raises(IntegrityError, match="the text encoder"):
        cmcr.load(tmp_path / "connection", encoders=[broken])


def test_a_memory_of_before_is_read_without_a_check(memory):
    manifest = json.loads((memory.folders[0] / "config.json").read_text())
    del manifest["references"]
    write_manifest(memory.folders[0], manifest)
    assert cmcr.Memory(memory.folders[0]).references is None
    assert verify(memory.folders[0])["encoders_compared"] == []

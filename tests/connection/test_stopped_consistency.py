"""Semantic consistency over hours: gone on with after any stop, refused where something is not what it was."""

import numpy as np
import pytest

from cmcr import Memory, write_memory
from cmcr.connection import consistency
from cmcr.connection.checkpoint import Checkpoint, open_checkpoint
from cmcr.connection.enhancement import semantic_consistency
from cmcr.connection.peers import Peers
from cmcr.connection.softmax_mean import Tiling
from cmcr.errors import FormatError, IntegrityError, LockedError, ResumeError
from reference.enhancement import normalize


class StoppedError(Exception):
    """As if the process were killed."""


@pytest.fixture
def inputs(rng, monkeypatch):
    monkeypatch.setattr(consistency, "tiling_for", lambda width, products, sums, *_: Tiling(4, 2, products, sums))
    return normalize(rng.normal(size=(11, 5))).astype(np.float32), normalize(rng.normal(size=(9, 5))).astype(np.float32)


def stopped_after(monkeypatch, pieces):
    """Stop the first run after some pieces."""
    keep = Checkpoint.keep
    count = 0

    def stopping(self, name, rows):
        nonlocal count
        if count == pieces:
            raise StoppedError
        count += 1
        keep(self, name, rows)

    monkeypatch.setattr(Checkpoint, "keep", stopping)


@pytest.mark.parametrize("pieces", [0, 1, 2])
@pytest.mark.parametrize("unit", [False, True])
def test_a_stopped_run_gives_the_bits_of_an_uninterrupted_one(inputs, tmp_path, pieces, unit):
    queries, memory = inputs
    expected = semantic_consistency(queries, memory, 0.1, normalize=unit)
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(patch, pieces)
        with pytest.raises(StoppedError):
            semantic_consistency(queries, memory, 0.1, normalize=unit, checkpoint=tmp_path / "c")
    shares = []
    found = semantic_consistency(
        queries, memory, 0.1, normalize=unit, checkpoint=tmp_path / "c", progress=shares.append
    )
    assert np.array_equal(found, expected)
    assert len(shares) == pieces + (3 - pieces) * 5  # what was finished is not done again
    assert shares[-1] == 1.0
    assert not (tmp_path / "c").exists()


def test_memories_on_disk_go_on_too(inputs, tmp_path, monkeypatch):
    queries, rows = inputs
    write_memory(tmp_path / "m", rows, space="x", modality="image", dtype="float32")
    memory = Memory(tmp_path / "m")
    expected = semantic_consistency(queries, memory)
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(patch, 1)
        with pytest.raises(StoppedError):
            semantic_consistency(queries, memory, checkpoint=tmp_path / "c")
    assert np.array_equal(semantic_consistency(queries, memory, checkpoint=tmp_path / "c"), expected)


@pytest.mark.parametrize("change", ["queries", "memory", "temperature", "normalize", "products"])
def test_a_run_of_something_else_is_refused(inputs, tmp_path, change):
    queries, memory = inputs
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(patch, 1)
        with pytest.raises(StoppedError):
            semantic_consistency(queries, memory, 0.1, checkpoint=tmp_path / "c")
    changed = {
        "queries": {"queries": queries[::-1]},
        "memory": {"memory": memory[::-1]},
        "temperature": {"temperature": 0.2},
        "normalize": {"normalize": True},
        "products": {"precision": "bfloat16"},
    }[change]
    arguments = {"queries": queries, "memory": memory, "temperature": 0.1, **changed}
    with pytest.raises(ResumeError, match=rf"something else was begun here: .*{change} was"):
        semantic_consistency(checkpoint=tmp_path / "c", **arguments)


def test_a_run_of_another_version_is_refused(inputs, tmp_path, monkeypatch):
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(patch, 1)
        with pytest.raises(StoppedError):
            semantic_consistency(*inputs, checkpoint=tmp_path / "c")
    monkeypatch.setattr(consistency, "__version__", "9.9")
    with pytest.raises(ResumeError, match=r"version of cmcr was \S+, now 9\.9\."):
        semantic_consistency(*inputs, checkpoint=tmp_path / "c")


def test_bytes_that_changed_are_named(inputs, tmp_path):
    queries, memory = inputs
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(patch, 2)
        with pytest.raises(StoppedError):
            semantic_consistency(queries, memory, checkpoint=tmp_path / "c")
    path = tmp_path / "c" / "rows-consistent-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"rows-consistent-00001\.safetensors: its bytes have changed"):
        semantic_consistency(queries, memory, checkpoint=tmp_path / "c")
    path.write_bytes(content[:-1])
    with pytest.raises(FormatError, match="remove this file alone, and its rows are computed again"):
        semantic_consistency(queries, memory, checkpoint=tmp_path / "c")


def test_two_runs_at_once_are_refused(inputs, tmp_path):
    with open_checkpoint(tmp_path / "c", Peers()), pytest.raises(LockedError, match="another run is at work there"):
        semantic_consistency(*inputs, checkpoint=tmp_path / "c")


def test_a_folder_of_something_else_is_left_alone(inputs, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FormatError, match="got other things"):
        semantic_consistency(*inputs, checkpoint=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"

"""Rows under way: gone on with after any stop, refused where they are not what they were."""

import json

import numpy as np
import pytest
import torch

from cmcr import Memory, write_memory
from cmcr.connection import consistency, resumable_rows
from cmcr.connection.enhancement import semantic_consistency
from cmcr.connection.resumable_rows import ResumableRows
from cmcr.connection.softmax_mean import Tiling
from cmcr.errors import FormatError, IntegrityError, LockedError, ResumeError, WriteError
from reference.enhancement import normalize


class StoppedError(Exception):
    """As if the process were killed."""


@pytest.fixture
def inputs(rng, monkeypatch):
    monkeypatch.setattr(consistency, "tiling_for", lambda width, products, sums, device: Tiling(4, 2, products, sums))
    return normalize(rng.normal(size=(11, 5))).astype(np.float32), normalize(rng.normal(size=(9, 5))).astype(np.float32)


def stopped_after(monkeypatch, pieces):
    """Stop the first run after some pieces."""
    finish = ResumableRows.finish
    count = 0

    def stopping(self, upto):
        nonlocal count
        if count == pieces:
            raise StoppedError
        count += 1
        finish(self, upto)

    monkeypatch.setattr(ResumableRows, "finish", stopping)


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
    assert shares[0] > pieces * 4 / 11  # what was finished is not done again
    assert len(shares) == (3 - pieces) * 5
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


@pytest.mark.parametrize("change", ["queries", "memory", "temperature", "normalize", "tiling"])
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
        "tiling": {"precision": "bfloat16"},
    }[change]
    arguments = {"queries": queries, "memory": memory, "temperature": 0.1, **changed}
    with pytest.raises(ResumeError, match=rf"begun from something else .*{change} was"):
        semantic_consistency(checkpoint=tmp_path / "c", **arguments)


def test_bytes_that_changed_are_named(inputs, tmp_path):
    queries, memory = inputs
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(patch, 2)
        with pytest.raises(StoppedError):
            semantic_consistency(queries, memory, checkpoint=tmp_path / "c")
    path = tmp_path / "c" / "rows.bin"
    content = bytearray(path.read_bytes())
    content[5 * 5 * 4] ^= 1  # in row 5
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"rows 4\.\.7 are not those that were written"):
        semantic_consistency(queries, memory, checkpoint=tmp_path / "c")
    path.write_bytes(content[:-1])
    with pytest.raises(IntegrityError, match="not as long as it was"):
        semantic_consistency(queries, memory, checkpoint=tmp_path / "c")


def opened(folder):
    return ResumableRows(folder, (4, 2), torch.float32, {"what": 1})


def test_two_runs_at_once_are_refused_and_the_lock_ends_with_the_run(tmp_path):
    first = opened(tmp_path / "c")
    with pytest.raises(LockedError, match="another run"):
        opened(tmp_path / "c")
    first.release()
    opened(tmp_path / "c").remove()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("state", ["", "{", "[]", "{}", json.dumps({"format": "x", "made_from": {}, "parts": []})])
def test_a_state_that_cannot_be_read_says_so(tmp_path, state):
    opened(tmp_path / "c").release()
    (tmp_path / "c" / "state.json").write_text(state)
    with pytest.raises(FormatError, match=r"state\.json: cannot be read"):
        opened(tmp_path / "c")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FormatError, match="holds something else"):
        opened(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_full_disk_is_found_before_the_work(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})()
    monkeypatch.setattr(resumable_rows.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WriteError, match="are free"):
        opened(tmp_path / "c")


def test_a_file_where_the_folder_should_be_says_so(tmp_path):
    (tmp_path / "c").write_text("mine")
    with pytest.raises(WriteError, match="could not write"):
        opened(tmp_path / "c")


def test_going_back_forgets_what_others_have_not_done(tmp_path):
    rows = opened(tmp_path / "c")
    rows.rows[:] = torch.arange(8.0).view(4, 2)
    rows.finish(2)
    rows.finish(3)
    rows.go_back_to(2)
    assert rows.done == 2
    rows.remove()

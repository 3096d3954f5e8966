"""cmcr.write_memory: arrays, blocks and pairs become the same memory; bad rows are named; runs are resumed."""

import numpy as np
import pytest
import torch
from helpers import tree_of
from hypothesis import given, settings
from hypothesis import strategies as st

import cmcr
from cmcr.errors import (
    ConfigError,
    DimensionError,
    DtypeError,
    NonFiniteError,
    ResumeError,
    TooFewRowsError,
    ZeroRowError,
)
from cmcr.memories.precomputed import shard_items_for, unit_rows_kept
from cmcr.memories.writer import MemoryWriter

CLIP = {"space": "clip", "modality": "image"}
IDS = [f"ü{row}\n" for row in range(11)]


@pytest.fixture
def rows(rng):
    return rng.normal(size=(11, 5)).astype(np.float32)


def cut(rows, size):
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@settings(max_examples=12)
@given(
    ids=st.lists(st.text(), min_size=1, max_size=9, unique=True),
    width=st.integers(1, 4),
    shard_items=st.integers(1, 5),
    kept=st.sampled_from([("float16", 5e-4), ("bfloat16", 4e-3), ("float32", 1e-6)]),
)
def test_rows_come_back_at_unit_length(tmp_path_factory, ids, width, shard_items, kept):
    rows = np.random.default_rng(0).normal(size=(len(ids), width)) + 3
    folder, (dtype, error) = tmp_path_factory.mktemp("any") / "m", kept
    memory = cmcr.write_memory(folder, rows, ids, **CLIP, dtype=dtype, shard_items=shard_items)
    np.testing.assert_allclose(memory[:], rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=error)
    assert memory.ids == ids
    assert (memory.space, memory.modality, memory.dtype, memory.fingerprint) == ("clip", "image", dtype, None)


def test_all_kinds_of_rows_give_the_same_files(tmp_path, rows):
    np.save(tmp_path / "rows.npy", rows)
    kinds = {
        "array": (rows, IDS),
        "tensor": (torch.from_numpy(rows), IDS),
        "map": (np.load(tmp_path / "rows.npy", mmap_mode="r"), IDS),
        "fortran": (np.asfortranarray(rows), np.array(IDS)),
        "foreign": (rows.astype(">f4"), IDS),
        "blocks": (cut(rows, 2), IDS),
        "one walk": (iter(cut(rows, 5)), IDS),
    }
    trees = {}
    for name, (blocks, ids) in kinds.items():
        cmcr.write_memory(tmp_path / name, blocks, ids, **CLIP, shard_items=4)
        trees[name] = tree_of(tmp_path / name)
    assert all(tree == trees["array"] for tree in trees.values()), trees
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kinds, "rows.npy"])  # nothing temporary is left
    assert cmcr.Memory(tmp_path / "array").ids == IDS


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_unit_rows_keep_their_bits(rows, dtype):
    once, usable = unit_rows_kept(torch.from_numpy(rows), dtype)
    assert usable.all()
    for given_rows in (once, once.float(), once.double()):
        assert torch.equal(unit_rows_kept(given_rows, dtype)[0], once)
    longer = once.double() * 1.02
    assert not torch.equal(longer.to(once.dtype), once)
    torch.testing.assert_close(unit_rows_kept(longer, dtype)[0].float(), once.float(), atol=8e-3, rtol=0)


def test_lengths_that_overflow_or_vanish_are_scaled_too():
    rows = torch.tensor([[3e38, 3e38], [1e-40, 0], [3, 4], [0.6, 0.8], [0, 0], [torch.nan, 1]])
    kept, usable = unit_rows_kept(rows, "float32")
    assert usable.tolist() == [True] * 4 + [False] * 2
    expected = torch.tensor([[0.5**0.5, 0.5**0.5], [1, 0], [0.6, 0.8], [0.6, 0.8]])
    torch.testing.assert_close(kept[:4], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("value", "kind"), [(np.nan, NonFiniteError), (-np.inf, NonFiniteError), (0, ZeroRowError)])
def test_a_bad_row_is_named_and_what_was_finished_is_kept(tmp_path, rows, value, kind):
    bad = rows.copy()
    bad[9] = value
    with pytest.raises(kind, match=r"row 9 .*ü9"):
        cmcr.write_memory(tmp_path / "m", bad, IDS, **CLIP, shard_items=4)
    assert (tmp_path / "m" / "shard-00000.safetensors").is_file()
    for name in ("m", "whole"):
        cmcr.write_memory(tmp_path / name, rows, IDS, **CLIP, shard_items=4)
    assert tree_of(tmp_path / "m") == tree_of(tmp_path / "whole")


def test_bad_rows_go_to_quarantine_on_demand(tmp_path, rows):
    rows[2] = 0  # row "2": without ids, rows are numbered
    rows[5, 1] = np.inf
    memory = cmcr.write_memory(tmp_path / "m", rows, **CLIP, quarantine=True, shard_items=4)
    assert memory.ids == ["0", "1", "3", "4", "6", "7", "8", "9", "10"]
    found = [(item.id, item.position, item.reason.split()[0]) for item in memory.quarantine()]
    assert found == [("2", 2, "all"), ("5", 5, "NaN")]


def test_an_interrupted_run_is_resumed(tmp_path, rows, monkeypatch):
    def written(name):
        return cmcr.write_memory(tmp_path / name, iter(cut(rows, 3)), IDS, **CLIP, shard_items=4)

    write = MemoryWriter.write

    def fail(self, number, *arguments):
        if number == 1:
            raise KeyboardInterrupt
        return write(self, number, *arguments)

    written("whole")
    monkeypatch.setattr(MemoryWriter, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        written("m")
    monkeypatch.undo()
    written("m")
    assert tree_of(tmp_path / "m") == tree_of(tmp_path / "whole")


def test_only_some_blocks_lie_in_ram(tmp_path):
    alive, most = 0, 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            if self.base is None:
                alive -= 1

    def blocks():
        nonlocal alive, most
        for _ in range(100):
            block = np.ones((4, 3), dtype=np.float32).view(Counted).copy()
            alive += 1
            most = max(most, alive)
            yield block

    ids = [str(row) for row in range(400)]
    assert len(cmcr.write_memory(tmp_path / "m", blocks(), ids, **CLIP, shard_items=8)) == 400
    assert most <= 6  # of a hundred, two a shard


@pytest.mark.parametrize(
    ("blocks", "ids", "kind", "message"),
    [
        (np.ones((3, 2)), ["a", "b"], DimensionError, "3 rows, got 2"),
        (np.ones((3, 2)), ["a", "b", "a"], ConfigError, "'a' occurs twice"),
        (np.ones((3, 2)), ["a", 2, "c"], ConfigError, "expected strings"),
        (np.ones(3), None, DimensionError, "shape"),
        (np.array(3.0), None, DimensionError, "shape"),
        (np.ones((2, 3), dtype=int), None, DtypeError, "got int64"),
        (np.ones((0, 3)), None, TooFewRowsError, "got none"),
        (iter([]), None, TooFewRowsError, "got none"),
        ([np.ones((2, 3)), np.ones((2, 4))], list("abcd"), DimensionError, "3 wide"),
        ([np.ones((2, 3))], None, ConfigError, "ids of all rows"),
        ([np.ones((2, 3))], ["a"], DimensionError, "1 ids, but 2 rows"),
        ([np.ones((2, 3))], ["a", "b", "c"], DimensionError, "3 ids, but 2 rows"),
        ("rows.npy", None, DtypeError, "got str"),
    ],
)
def test_wrong_rows_and_ids(tmp_path, blocks, ids, kind, message):
    with pytest.raises(kind, match=message):
        cmcr.write_memory(tmp_path / "m", blocks, ids, **CLIP)


def test_wrong_settings(tmp_path, rows):
    for wrong in ({"modality": "imag"}, {"space": " "}, {"dtype": "int8"}, {"shard_items": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            cmcr.write_memory(tmp_path / "m", rows, **{**CLIP, **wrong})
    cmcr.write_memory(tmp_path / "m", rows, **CLIP)
    for other, ids in ((rows, IDS), (rows[:, :4], None)):
        with pytest.raises(ResumeError, match="list of items"):
            cmcr.write_memory(tmp_path / "m", other, ids, **CLIP)


def test_shards_are_some_64_mib():
    assert shard_items_for(512, "float16") == 65_536
    assert shard_items_for(768, "float32") == 16_384
    assert shard_items_for(1_000_000, "float32") == 1024

"""cmcr.write_memory: arrays, blocks and pairs become the same memory; bad rows are named; runs are gone on with."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
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
from cmcr.memories import precomputed
from cmcr.memories.precomputed import unit_rows_kept
from cmcr.memories.row_writing import shard_items_for
from cmcr.memories.shards import as_kept
from cmcr.memories.writer import MemoryWriter

CLIP = {"space": "clip", "modality": "image"}


@pytest.fixture
def rows(rng):
    return rng.normal(size=(11, 5)).astype(np.float32)


def digest_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def cut(rows, size):
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@pytest.mark.parametrize(("dtype", "error"), [("float16", 5e-4), ("bfloat16", 4e-3), ("float32", 1e-6)])
def test_rows_are_scaled_to_unit_length(tmp_path, rows, dtype, error):
    memory = cmcr.write_memory(tmp_path / "m", 7 * rows, **CLIP, dtype=dtype, shard_items=4)
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(memory[:], expected, atol=error)
    assert memory.ids == [str(row) for row in range(11)]
    assert memory.item(3) == ("3", "3")
    assert (memory.space, memory.modality, memory.dtype, memory.fingerprint) == ("clip", "image", dtype, None)


def test_all_ways_of_giving_rows_give_the_same_files(tmp_path, rows):
    ids = [f"ü{row}\n" for row in range(11)]
    np.save(tmp_path / "rows.npy", rows)
    pairs = [(rows[start : start + 3], ids[start : start + 3]) for start in range(0, 11, 3)]
    ways = {
        "array": (rows, ids),
        "tensor": (torch.from_numpy(rows), ids),
        "map": (np.load(tmp_path / "rows.npy", mmap_mode="r"), ids),
        "fortran": (np.asfortranarray(rows), np.array(ids)),
        "blocks": (cut(rows, 2), ids),
        "one walk": (iter(cut(rows, 5)), ids),
        "pairs": (pairs, None),
        "function": (lambda: iter(pairs), None),
        "generator": ((pair for pair in pairs), None),
    }
    for name, (blocks, given_ids) in ways.items():
        cmcr.write_memory(tmp_path / name, blocks, given_ids, **CLIP, shard_items=4)
    digests = {name: digest_of(tmp_path / name) for name in ways}
    assert all(digest == digests["array"] for digest in digests.values()), digests
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*ways, "rows.npy"])  # nothing temporary is left
    assert cmcr.Memory(tmp_path / "array").ids == ids


def test_blocks_without_ids_are_numbered(tmp_path, rows):
    assert cmcr.write_memory(tmp_path / "a", cut(rows, 4), **CLIP).ids == [str(row) for row in range(11)]
    assert cmcr.write_memory(tmp_path / "b", iter(cut(rows, 4)), **CLIP).ids == [str(row) for row in range(11)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_unit_rows_keep_their_bits(rows, dtype):
    once, usable = unit_rows_kept(torch.from_numpy(rows), dtype)
    assert usable.all()
    for given_rows in (once, once.float(), once.double()):
        assert torch.equal(unit_rows_kept(given_rows, dtype)[0], once)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("width", [1, 5, 600])
def test_looking_fast_at_unit_rows_changes_nothing(rng, monkeypatch, dtype, width):
    monkeypatch.setattr(precomputed, "_LOOKED_AT", 400)
    rows = torch.from_numpy(rng.normal(size=(900, width)))
    unit = as_kept(rows / rows.norm(dim=1, keepdim=True), dtype)
    changes = [1, 0, np.nan, np.inf, 1.0003, 1.0007, 1.002, 1.01, 3, 1 + 2**-21, 1 + 2**-19]
    for change in changes:
        for row in (0, 400, 899):  # in each of the parts that are looked at
            rows = unit.clone()
            rows[row] *= change
            kept, usable = unit_rows_kept(rows, dtype)
            with monkeypatch.context() as slow:
                slow.setattr(precomputed, "_surely_unit", lambda rows, at_once: False)
                expected, expected_usable = unit_rows_kept(rows, dtype)
            assert torch.equal(usable, expected_usable)
            assert torch.equal(kept[usable], expected[usable])
    assert unit_rows_kept(unit, dtype)[0] is unit  # nothing is copied


def test_lengths_that_overflow_or_vanish_are_scaled_too():
    rows = torch.tensor([[3e38, 3e38], [1e-40, 0], [3, 4], [0.6, 0.8]])
    kept, usable = unit_rows_kept(rows, "float32")
    assert usable.all()
    expected = torch.tensor([[0.5**0.5, 0.5**0.5], [1, 0], [0.6, 0.8], [0.6, 0.8]])
    torch.testing.assert_close(kept, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (np.nan, NonFiniteError, r"row 9 \(id 'i9'\): NaN or infinity in 5 value"),
        (-np.inf, NonFiniteError, r"row 9 \(id 'i9'\): NaN or infinity"),
        (0, ZeroRowError, r"row 9 \(id 'i9'\): all zeros"),
    ],
)
def test_a_bad_row_is_named_and_what_was_finished_is_gone_on_with(tmp_path, rows, value, kind, message):
    ids = [f"i{row}" for row in range(11)]
    bad = rows.copy()
    bad[9] = value
    with pytest.raises(kind, match=message):
        cmcr.write_memory(tmp_path / "m", bad, ids, **CLIP, shard_items=4)
    assert (tmp_path / "m" / "shard-00000.safetensors").is_file()
    memory = cmcr.write_memory(tmp_path / "m", rows, ids, **CLIP, shard_items=4)
    cmcr.write_memory(tmp_path / "whole", rows, ids, **CLIP, shard_items=4)
    assert len(memory) == 11
    assert digest_of(tmp_path / "m") == digest_of(tmp_path / "whole")


def test_bad_rows_go_to_quarantine_if_asked(tmp_path, rows):
    rows[2] = 0
    rows[5, 1] = np.inf
    memory = cmcr.write_memory(tmp_path / "m", rows, **CLIP, quarantine=True, shard_items=4)
    assert memory.ids == ["0", "1", "3", "4", "6", "7", "8", "9", "10"]
    assert [(item.id, item.position) for item in memory.quarantine()] == [("2", 2), ("5", 5)]
    assert [item.reason for item in memory.quarantine()] == [
        "all zeros: it has no direction",
        "NaN or infinity in 1 value(s)",
    ]
    with pytest.raises(ConfigError, match="none of the 3 rows can be used"):
        cmcr.write_memory(tmp_path / "none", np.zeros((3, 2)), **CLIP, quarantine=True)


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("finished", [[0], [1], [0, 2]])
def test_an_interrupted_run_is_gone_on_with(tmp_path, rows, finished, once, monkeypatch):
    def blocks():
        given_blocks = [
            (rows[start : start + 3], [f"i{i}" for i in range(start, min(start + 3, 11))]) for start in range(0, 11, 3)
        ]
        return iter(given_blocks) if once else given_blocks

    write = MemoryWriter.write

    def failing(self, number, *arguments):
        if number not in finished:
            raise KeyboardInterrupt
        return write(self, number, *arguments)

    cmcr.write_memory(tmp_path / "whole", blocks(), **CLIP, shard_items=4)
    monkeypatch.setattr(MemoryWriter, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        cmcr.write_memory(tmp_path / "m", blocks(), **CLIP, shard_items=4)
    monkeypatch.undo()
    cmcr.write_memory(tmp_path / "m", blocks(), **CLIP, shard_items=4)
    assert digest_of(tmp_path / "m") == digest_of(tmp_path / "whole")


def test_only_some_blocks_lie_in_ram(tmp_path):
    alive = 0
    most = 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            if self.base is None:
                alive -= 1

    def blocks():
        nonlocal alive, most
        for _ in range(100):
            block = np.ones((4, 3), dtype=np.float32).view(Counted)
            block = block.copy()
            alive += 1
            most = max(most, alive)
            yield block

    ids = [str(row) for row in range(400)]
    assert len(cmcr.write_memory(tmp_path / "m", blocks(), ids, **CLIP, shard_items=8)) == 400
    assert most <= 12  # of a hundred: two a shard, two shards written, one that is cut


@pytest.mark.parametrize(
    ("blocks", "ids", "kind", "message"),
    [
        (np.ones((3, 2)), ["a", "b"], DimensionError, "one of the ids for each of 3 rows, got 2"),
        (np.ones((3, 2)), ["a", "b", "a"], ConfigError, "the id 'a' occurs twice, in rows 0 and 2"),
        (np.ones((3, 2)), ["a", 2, "c"], ConfigError, r"expected strings as ids, got 2 \(int\) for row 1"),
        (np.ones(3), None, DimensionError, r"expected shape \(n, D\), got \(3,\)"),
        (np.ones((0, 3)), None, TooFewRowsError, "expected at least one row, got none"),
        (np.ones((2, 3), dtype=int), None, DtypeError, "expected float16, float32 or float64, got int64"),
        ([], None, TooFewRowsError, "expected at least one block of rows, got none"),
        (iter([]), None, TooFewRowsError, "expected at least one block of rows, got none"),
        ([np.ones((2, 3)), np.ones((2, 4))], None, DimensionError, "the first rows are 3 wide"),
        (iter([np.ones((2, 3)), np.ones((2, 4))]), None, DimensionError, "the first are 3 wide"),
        ([np.ones((2, 3))], ["a"], DimensionError, "more than the 1 ids"),
        ([np.ones((2, 3))], ["a", "b", "c"], DimensionError, "ids for more rows, but the rows end after 2"),
        ([(np.ones((2, 3)), ["a"])], None, DimensionError, "a block has 2 rows and 1 ids"),
        ([(np.ones((1, 3)), ["a"])], ["a"], ConfigError, "got both"),
        ([(np.ones((1, 3)), ["a"]), np.ones((1, 3))], None, ConfigError, "with all blocks or with none"),
        ("rows.npy", None, DtypeError, "an iterable of such blocks or of .rows, ids., got str"),
    ],
)
def test_wrong_rows_and_ids(tmp_path, blocks, ids, kind, message):
    with pytest.raises(kind, match=message):
        cmcr.write_memory(tmp_path / "m", blocks, ids, **CLIP)


def test_wrong_settings(tmp_path, rows):
    with pytest.raises(ConfigError, match="Did you mean 'image'"):
        cmcr.write_memory(tmp_path / "m", rows, space="clip", modality="imag")
    with pytest.raises(ConfigError, match="expected the space's name, got ' '"):
        cmcr.write_memory(tmp_path / "m", rows, space=" ", modality="image")
    with pytest.raises(ConfigError, match="unknown dtype 'int8'"):
        cmcr.write_memory(tmp_path / "m", rows, **CLIP, dtype="int8")
    cmcr.write_memory(tmp_path / "m", rows, **CLIP)
    with pytest.raises(ResumeError, match=r"list of items \(their ids, texts and sizes\) was"):
        cmcr.write_memory(tmp_path / "m", rows, [f"x{row}" for row in range(11)], **CLIP)


def test_shards_are_some_64_mib():
    assert shard_items_for(512, "float16") == 65_536
    assert shard_items_for(768, "float32") == 16_384
    assert shard_items_for(1_000_000, "float32") == 1024


@given(st.lists(st.text(), min_size=1, max_size=9, unique=True), st.integers(1, 4), st.integers(1, 5))
def test_any_ids_come_back(tmp_path_factory, ids, width, shard_items):
    rows = np.random.default_rng(0).normal(size=(len(ids), width)) + 3
    folder = tmp_path_factory.mktemp("any") / "m"
    memory = cmcr.write_memory(folder, rows, ids, **CLIP, dtype="float32", shard_items=shard_items)
    assert memory.ids == ids
    np.testing.assert_allclose(memory[:], rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-6)

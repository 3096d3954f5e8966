"""`Memory` against a twin that reads the files by hand."""

import os
import pickle
import resource

import numpy as np
import psutil
import pytest
import torch
from helpers import rows_on_disk, store, unit
from hypothesis import given
from hypothesis import strategies as st

from cmcr.errors import (
    ArtefactNotFoundError,
    ConfigError,
    DimensionError,
    FormatError,
    IntegrityError,
    ReadError,
)
from cmcr.memories.layout import DTYPES
from cmcr.memories.memory import Memory
from cmcr.memories.verification import verify
from cmcr.search.exact import ExactIndex


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eleven items in shards of four; the first shard has no row at all, the second three."""
    made = tmp_path_factory.mktemp("memory")
    store(made, unit(6), bad=(0, 1, 2, 3, 5))
    return made


@pytest.fixture
def memory(folder):
    return Memory(folder)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_those_on_disk(tmp_path, dtype):
    rows = unit(11)
    store(tmp_path, rows, dtype=dtype)
    memory, expected = Memory(tmp_path), torch.from_numpy(rows).to(DTYPES[dtype]).float().numpy()
    np.testing.assert_array_equal(rows_on_disk(tmp_path), expected)
    np.testing.assert_array_equal(np.array(memory, dtype=np.float64), expected.astype(np.float64))
    np.testing.assert_array_equal(np.stack(list(memory)), expected)
    assert memory.dtype == dtype
    for taken in (memory[0], memory[:2], memory[[0]], np.asarray(memory), next(memory.blocks())):
        assert taken.dtype == np.float32
        taken[:] = 7  # the caller's own
        np.testing.assert_array_equal(memory[0], expected[0])
    with pytest.raises(ValueError, match="without a copy"):
        memory.__array__(copy=False)


def test_attributes_and_items(memory, folder):
    assert (memory.space, memory.modality, memory.fingerprint) == ("mine", "text", "0123456789abcdef")
    assert (memory.model, memory.revision) == ("a/model", "c0ffee")
    assert (memory.width, memory.shape, len(memory)) == (5, (6, 5), 6)
    assert f"{folder}: text of 'mine', 6 x 5 float32" in repr(memory)
    assert repr(pickle.loads(pickle.dumps(memory))) == repr(memory)
    assert memory.ids == [f"item-{position}" for position in (4, 6, 7, 8, 9, 10)]
    assert [(q.id, q.source, q.position, q.reason) for q in memory.quarantine()] == [
        (f"item-{p}", f"list:{p}", p, f"bad {p}") for p in (0, 1, 2, 3, 5)
    ]


@pytest.mark.parametrize(
    "rows",
    [
        0, -6, 5, np.int32(3), np.uint8(2), slice(None), slice(4, 1, -2), slice(-3, None), slice(9, 20), slice(3, 3),
        [5, 0, 0, -1], [], np.array([4, 1], dtype=np.uint16), range(2, 5),
        np.array([True, False, False, True, True, False]), [False] * 6,
    ],
    ids=str,
)  # fmt: skip
def test_indexing_is_that_of_an_array(memory, folder, rows):
    twin = rows_on_disk(folder)
    expected = twin[np.asarray(rows, dtype=np.int64)] if isinstance(rows, list) and not rows else twin[rows]
    np.testing.assert_array_equal(memory[rows], expected)
    assert memory[rows].shape == expected.shape


@pytest.mark.parametrize(
    "rows", [6, -7, [0, 6], [True], True, 1.0, [0.0, 1.0], [[0, 1]], (0, 1), "first", None, [2**64], [2**63]], ids=str
)
def test_indexing_refuses_what_is_not_a_position(memory, rows):
    with pytest.raises(IndexError, match=r"is not there|expected positions of rows|a mask must be"):
        memory[rows]


@given(
    items=st.integers(1, 30), shard_items=st.integers(1, 12), block=st.integers(1, 40), seed=st.integers(0, 3),
    share=st.sampled_from([0.0, 0.3, 0.9]),
)  # fmt: skip
def test_blocks_of_any_size_join_to_the_whole(tmp_path_factory, items, shard_items, block, seed, share):
    folder = tmp_path_factory.mktemp("blocks")
    chance = np.random.default_rng(seed).random(items)
    bad = tuple(position for position in range(1, items) if chance[position] < share)
    rows = unit(items - len(bad), seed=seed)
    store(folder, rows, shard_items=shard_items, bad=bad)
    memory = Memory(folder)
    parts = list(memory.blocks(block))
    assert all(0 < len(part) <= block for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    np.testing.assert_array_equal(memory[:], rows)


@pytest.mark.parametrize("size", [0, 2.0])
def test_blocks_of_no_size(memory, size):
    with pytest.raises(ConfigError, match="rows"):
        next(memory.blocks(size))


def test_several_memories_as_one(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    parts = [unit(count, seed=count) for count in (3, 1, 6)]
    for folder, rows, dtype in zip(folders, parts, ("float32", "float32", "float16"), strict=True):
        store(folder, rows, dtype=dtype, ids=[f"{folder.name}{n}" for n in range(len(rows))])
    memory = Memory(*folders)
    whole = np.concatenate([*parts[:2], parts[2].astype(np.float16)]).astype(np.float32)
    np.testing.assert_array_equal(np.asarray(memory), whole)
    np.testing.assert_array_equal(memory[[9, 0, 3, 4]], whole[[9, 0, 3, 4]])
    np.testing.assert_array_equal(Memory(*folders[::-1])[0], whole[4])
    assert memory.ids == ["a0", "a1", "a2", "b0", *[f"c{n}" for n in range(6)]]


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("space", "other"),
        ("modality", "image"),
        ("fingerprint", None),
        ("model", "b"),
        ("revision", "f00"),
    ],
)
def test_memories_of_other_kinds_are_not_mixed(tmp_path, change, value):
    store(tmp_path / "a", unit(2))
    store(tmp_path / "b", unit(2), **{change: value})
    with pytest.raises(ConfigError, match=f"not of one kind: {change} was"):
        Memory(tmp_path / "a", tmp_path / "b")


def test_memories_of_other_widths_are_not_mixed(tmp_path):
    store(tmp_path / "a", unit(2))
    store(tmp_path / "b", unit(2, width=6))
    with pytest.raises(DimensionError, match=r"b is 6 wide, .*a 5"):
        Memory(tmp_path / "a", tmp_path / "b")


def test_folders_that_are_not_memories(tmp_path):
    for wrong in ((), (5,), (["a", "b"],)):
        with pytest.raises(ConfigError, match="expected the folder of a memory"):
            Memory(*wrong)
    with pytest.raises(ArtefactNotFoundError, match="nowhere"):
        Memory(tmp_path / "nowhere")
    with pytest.raises(FormatError, match=r"config\.json"):
        Memory(tmp_path)


def test_what_the_system_refuses_is_a_read_error(tmp_path, monkeypatch):
    store(tmp_path, unit(3))
    memory = Memory(tmp_path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    for name in ("pathlib.Path.read_bytes", "pathlib.Path.open", "cmcr.memories.shards.safe_open"):
        monkeypatch.setattr(name, refuse)
    for use in (lambda: memory[0], lambda: memory.ids, lambda: next(memory.blocks()), lambda: Memory(tmp_path)):
        with pytest.raises(ReadError, match="Permission denied"):
            use()


def test_files_that_are_gone_or_cut_short(tmp_path):
    store(tmp_path, unit(3))
    path = tmp_path / "shard-00000.safetensors"
    content = path.read_bytes()
    first, second = Memory(tmp_path), Memory(tmp_path)
    path.write_bytes(content[:-4])
    with pytest.raises(IntegrityError, match=f"{len(content) - 4} bytes, expected {len(content)}"):
        Memory(tmp_path)
    for use in (lambda: first[0], lambda: list(first.blocks())):
        with pytest.raises(IntegrityError, match="cut short"):
            use()
    path.unlink()
    for use in (lambda: second[0], lambda: Memory(tmp_path)):
        with pytest.raises(IntegrityError, match="missing"):
            use()


@pytest.mark.parametrize(
    ("file", "was", "now"),
    [
        ("safetensors", b'"F32"', b'"I32"'),
        ("safetensors", b"[3,5]", b"[5,3]"),
        ("safetensors", b'"embeddings"', b'"embeddingz"'),
        ("safetensors", b"{", b"\xff"),
        *((lists, was, now) for lists in ("items.jsonl", "quarantine.jsonl")
          for was, now in ((b"item", b"\xfftem"), (b'"id"', b'"Xd"'), (b"{", b"["), (b': "', b":  "))),
    ],
)  # fmt: skip
def test_changed_bytes_are_noticed_when_they_are_read(tmp_path, file, was, now):
    store(tmp_path, unit(3), bad=(1,))
    path = tmp_path / f"shard-00000.{file}"
    path.write_bytes(path.read_bytes().replace(was, now, 1))
    memory = Memory(tmp_path)
    with pytest.raises(IntegrityError, match=rf"shard-00000\.{file}: "):
        _ = memory[0], memory.ids, list(memory.quarantine())


def test_opening_reads_manifests_only(tmp_path):
    store(tmp_path, unit(9))
    for path in tmp_path.glob("shard-*"):
        path.write_bytes(b"\0" * path.stat().st_size)
    assert Memory(tmp_path).shape == (9, 5)


def test_more_shards_than_a_process_may_open_files(tmp_path):
    rows = unit(150)
    store(tmp_path, rows, shard_items=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        memory = Memory(tmp_path)
        np.testing.assert_array_equal(memory[::-1], rows[::-1])
        np.testing.assert_array_equal(np.concatenate(list(memory.blocks())), rows)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_reading_blocks_takes_the_ram_of_a_shard(tmp_path):
    store(tmp_path, np.broadcast_to(np.float32(2**-7), (5_000, 2**14)), shard_items=500, dtype="float16")  # 164 MB
    memory, resident = Memory(tmp_path), lambda: psutil.Process().memory_info().rss / 1e6
    before = resident()
    seen = [(len(block), resident()) for block in memory.blocks(100)]
    assert sum(count for count, _ in seen) == 5_000
    assert max(held for _, held in seen) - before < 80


def test_a_digest_tells_rows_apart_without_reading_them(tmp_path, monkeypatch):
    rows = unit(9)
    changed = rows.copy()
    changed[8, 0] += 1e-6
    made = {"same": rows, "again": rows, "changed": changed, "reversed": rows[::-1], "fewer": rows[:8]}
    for name, kept in made.items():
        store(tmp_path / name, kept, ids=[f"{name}{n}" for n in range(len(kept))])  # other ids make no other rows
    store(tmp_path / "half", rows, dtype="float16")
    monkeypatch.setattr("cmcr.memories.memory.mapped_rows", None)
    found = {name: Memory(tmp_path / name).digest() for name in (*made, "half")}
    assert found["same"] == found["again"]
    assert len(set(found.values())) == len(found) - 1
    x, y = tmp_path / "same", tmp_path / "changed"
    assert len({Memory(*folders).digest() for folders in ((x,), (y,), (x, y), (y, x), (x, x))}) == 5


def test_a_digest_is_that_of_the_rows_as_written(tmp_path):
    store(tmp_path / "x", unit(4))
    before = Memory(tmp_path / "x").digest()
    folder = (tmp_path / "x").rename(tmp_path / "moved")
    store(folder, [], append=True, bad=(0, 1), ids=["new", "newer"])
    path = folder / "shard-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert Memory(folder).digest() == before
    with pytest.raises(IntegrityError, match=r"rows 0\.\.3"):
        verify(folder)
    store(folder, unit(1), append=True, ids=["newest"])
    assert Memory(folder).digest() != before


def test_mapped_shards_are_the_rows_as_they_are_kept(tmp_path):
    store(tmp_path / "m", unit(9), dtype="float32")
    memory = Memory(tmp_path / "m")
    shards = list(memory.mapped())
    assert [tuple(shard.shape) for shard in shards] == [(4, 5), (4, 5), (1, 5)]
    np.testing.assert_array_equal(torch.cat(shards).numpy(), memory[:])


def test_a_shard_that_shrinks_while_it_is_mapped_is_an_error_and_kills_nothing(tmp_path):
    rows = unit(4096, width=64)
    store(tmp_path, rows, shard_items=2048)
    memory, index = Memory(tmp_path), ExactIndex(Memory(tmp_path), None, None)
    blocks = memory.blocks(512)
    next(blocks), memory[4000], index.search(rows[:1], 1)
    os.truncate(tmp_path / "shard-00001.safetensors", 4096)
    np.testing.assert_array_equal(memory[5], rows[5])
    for use in (
        lambda: memory[4000],
        lambda: memory[[5, 4000]],
        lambda: list(blocks),
        lambda: index.search(rows[:1], 1),
    ):
        with pytest.raises(IntegrityError, match="cut short"):
            use()

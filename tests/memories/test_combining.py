"""Merging memories, and leaving out what occurs twice: rows keep their bits, quarantined items their places."""

import numpy as np
import pytest
import torch

import cmcr
from cmcr.errors import ConfigError, ResumeError
from cmcr.memories.combining import deduplicate, merge
from cmcr.memories.layout import Origin, Quarantined
from cmcr.memories.memory_rows import MemoryRows
from cmcr.memories.writer import open_writer


def kept_bits(memory):
    rows = torch.cat([block.rows for block in MemoryRows(memory).blocks(0, 5)])
    return rows.view(torch.uint8).numpy()


def sources_of(memory):
    return [memory.item(row)[1] for row in range(len(memory))]


def written(folder, ids, rng, *, dtype="float16", shard_items=3, width=4, bad=(), space="clip", modality="image"):
    rows = rng.normal(size=(len(ids), width)).astype(np.float32)
    rows[list(bad)] = np.nan
    sources = [f"{folder.name}/{id_}" for id_ in ids]
    return cmcr.write_memory(
        folder, rows, ids, space=space, modality=modality, dtype=dtype, shard_items=shard_items, sources=sources,
        quarantine=True,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("shard_items", [1, 4, 100])
def test_merged_rows_keep_their_bits_and_their_order(tmp_path, rng, dtype, shard_items):
    first = written(tmp_path / "a", [f"a{i}" for i in range(7)], rng, dtype=dtype)
    second = written(tmp_path / "b", [f"b{i}" for i in range(4)], rng, dtype=dtype, shard_items=2)
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all", shard_items=shard_items)
    assert merged.ids == first.ids + second.ids
    assert sources_of(merged) == sources_of(first) + sources_of(second)
    np.testing.assert_array_equal(kept_bits(merged), np.concatenate([kept_bits(first), kept_bits(second)]))
    assert (merged.space, merged.modality, merged.dtype) == ("clip", "image", dtype)


def test_quarantined_items_keep_their_places(tmp_path, rng):
    written(tmp_path / "a", ["a0", "a1", "a2", "a3"], rng, bad=[1])
    written(tmp_path / "b", ["b0", "b1"], rng, bad=[0])
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all", shard_items=4)
    assert merged.ids == ["a0", "a2", "a3", "b1"]
    assert [(item.id, item.position, item.source) for item in merged.quarantine()] == [
        ("a1", 1, "a/a1"),
        ("b0", 4, "b/b0"),
    ]
    assert all("NaN or infinity" in item.reason for item in merged.quarantine())


def test_an_id_twice_is_refused_and_named(tmp_path, rng):
    written(tmp_path / "a", ["x", "y"], rng)
    written(tmp_path / "b", ["z", "y"], rng)
    with pytest.raises(ConfigError, match="the id 'y' occurs twice, in rows 1 and 3"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_the_first_wins_and_a_row_beats_quarantine(tmp_path, rng):
    first = written(tmp_path / "a", ["x", "y", "w"], rng, bad=[1, 2])
    second = written(tmp_path / "b", ["z", "y", "x", "w"], rng, bad=[3])
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all", deduplicate=True, shard_items=2)
    assert merged.ids == ["x", "z", "y"]
    np.testing.assert_array_equal(merged[:], np.stack([first[0], second[0], second[1]]))
    assert [(item.id, item.source, item.position) for item in merged.quarantine()] == [("w", "a/w", 1)]


def test_deduplicate_by_id(tmp_path, rng):
    rows = torch.from_numpy(rng.normal(size=(5, 3)).astype(np.float16))
    origin = Origin("clip", "image", None, None, None, "float16")
    with open_writer(tmp_path / "twice", origin, 6, "d", shard_items=6) as writer:
        items = [("a", "1"), ("b", "2"), ("a", "3"), ("c", "5"), ("b", "6")]
        writer.write(0, rows, items, [Quarantined("q", "4", 3, "no")])
        writer.finish()
    once = deduplicate(tmp_path / "twice", tmp_path / "once")
    assert once.ids == ["a", "b", "c"]
    assert sources_of(once) == ["1", "2", "5"]
    np.testing.assert_array_equal(once[:], rows[[0, 1, 3]].float().numpy())
    assert [(item.id, item.position) for item in once.quarantine()] == [("q", 2)]
    assert len(cmcr.Memory(tmp_path / "twice")) == 5


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"space": "clap"}, "has the space 'clap'"),
        ({"modality": "text"}, "has the modality 'text'"),
        ({"dtype": "float32"}, "so all memories need one dtype"),
    ],
)
def test_memories_of_other_kinds_are_refused(tmp_path, rng, other, message):
    written(tmp_path / "a", ["x"], rng)
    written(tmp_path / "b", ["y"], rng, **other)
    with pytest.raises(ConfigError, match=message):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")


def test_never_in_place_and_never_over_another(tmp_path, rng):
    written(tmp_path / "a", ["x"], rng)
    written(tmp_path / "b", ["y"], rng)
    with pytest.raises(ConfigError, match="is one of the memories that are read"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "b")
    merge([tmp_path / "a"], tmp_path / "all")
    merge([tmp_path / "a"], tmp_path / "all")  # finished: nothing is done
    with pytest.raises(ResumeError, match=r"list of items \(their ids, texts and sizes\) was"):
        merge([tmp_path / "b"], tmp_path / "all")
    with pytest.raises(ConfigError, match="expected a list of memories"):
        merge(str(tmp_path / "a"), tmp_path / "c")


@pytest.mark.parametrize("finished", [[0], [1], [0, 2]])
def test_a_stopped_merge_is_gone_on_with(tmp_path, rng, finished, monkeypatch):
    written(tmp_path / "a", [f"a{i}" for i in range(5)], rng, bad=[0, 3])
    written(tmp_path / "b", [f"b{i}" for i in range(4)], rng)
    parts = [tmp_path / "a", tmp_path / "b"]
    whole = merge(parts, tmp_path / "whole", shard_items=3)
    from cmcr.memories.writer import MemoryWriter

    write = MemoryWriter.write

    def failing(self, number, *arguments):
        if number not in finished:
            raise KeyboardInterrupt
        return write(self, number, *arguments)

    monkeypatch.setattr(MemoryWriter, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        merge(parts, tmp_path / "all", shard_items=3)
    monkeypatch.undo()
    assert merge(parts, tmp_path / "all", shard_items=3).ids == whole.ids
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == names
    for name in names:
        assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

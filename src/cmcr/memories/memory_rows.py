"""The rows of memories on disk as they are kept, bit for bit, quarantined items among them in their places."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmcr.memories.layout import Shard, embeddings_file
from cmcr.memories.memory import Memory, items_in, quarantine_in
from cmcr.memories.row_source import Block, RowSource
from cmcr.memories.shards import MappedRows, kept_tensor, read_block


class MemoryRows(RowSource):
    """The items of one or several memories, one after another.

    Args:
        memory: of one kind and dtype.
        kept: `(items,)` which of them to give; None for all.
    """

    def __init__(self, memory: Memory, kept: NDArray[np.bool_] | None = None) -> None:
        self.description = ", ".join(str(folder) for folder in memory.folders)
        self.width = memory.width
        self._dtype = memory.dtype
        self._kept = kept
        self._shards = [
            (folder, shard)
            for folder, contents in zip(memory.folders, memory.contents, strict=True)
            for shard in contents.shards
        ]
        hashes = [sorted(shard.sha256.values()) for _, shard in self._shards]
        self.mark = hashlib.sha256(repr(hashes).encode()).digest()

    def ids(self) -> Iterator[Sequence[str]]:
        """Give the ids, a shard at a time."""
        for ids, _, _ in self.items():
            yield ids

    def items(self) -> Iterator[tuple[list[str], list[str], dict[int, str]]]:
        """Give ids, sources and, by place, why an item has no row; a shard at a time."""
        first = 0
        for folder, shard in self._shards:
            yield self._items(folder, shard, first)
            first += shard.items

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Give all items from `start` on; blocks end where shards do."""
        first, position = 0, 0
        for folder, shard in self._shards:
            count = shard.items if self._kept is None else int(self._kept[first : first + shard.items].sum())
            if position + count > start:
                block = self._block(folder, shard, first)
                yield block if position >= start else _without_first(block, start - position)
            first, position = first + shard.items, position + count

    def _block(self, folder: Path, shard: Shard, first: int) -> Block:
        ids, sources, missing = self._items(folder, shard, first)
        path = folder / embeddings_file(shard.name)
        mapped = MappedRows(path, shard, self._dtype)
        rows = read_block(path, mapped.offset, mapped.kind, shard.width, 0, shard.rows) if shard.rows else mapped.rows
        if self._kept is not None:
            without = [item.position - shard.first_item for item in quarantine_in(folder, shard)]
            rows = rows[np.delete(self._kept[first : first + shard.items], without)]
        return Block(ids, sources, kept_tensor(rows.reshape(len(rows), self.width), self._dtype), missing)

    def _items(self, folder: Path, shard: Shard, first: int) -> tuple[list[str], list[str], dict[int, str]]:
        """Put the rows' items and the quarantined ones of a shard back into their order."""
        with_rows = iter(items_in(folder, shard))
        without = {item.position - shard.first_item: item for item in quarantine_in(folder, shard)}
        ids: list[str] = []
        sources: list[str] = []
        missing: dict[int, str] = {}
        for place in range(shard.items):
            item = without.get(place)
            id_, source = (item.id, item.source) if item else next(with_rows)
            if self._kept is not None and not self._kept[first + place]:
                continue
            if item:
                missing[len(ids)] = item.reason
            ids.append(id_)
            sources.append(source)
        return ids, sources, missing


def _without_first(block: Block, count: int) -> Block:
    gone = sum(place < count for place in block.missing)
    missing = {place - count: reason for place, reason in block.missing.items() if place >= count}
    return Block(block.ids[count:], block.sources[count:], block.rows[count - gone :], missing)

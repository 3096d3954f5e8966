"""From rows that exist already to a memory: shard by shard, resumably, two at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from cmcr.errors import ConfigError, DimensionError
from cmcr.memories.item_pairs import ItemPairs
from cmcr.memories.layout import DTYPES, Origin, Quarantined
from cmcr.memories.memory import Memory
from cmcr.memories.row_source import Block, RowSource, survey_rows
from cmcr.memories.writer import MemoryWriter, open_writer

Prepare = Callable[[Block, int], Block]
"""Turns a block, whose first item stands at the given position, into one whose rows can be kept as they are."""

OnProgress = Callable[[float], None]
"""Called with the share of the work that is done."""
_SHARD_BYTES = 64 * 2**20  # every shard waits for the disk five times
_FEWEST = 1024
_WRITTEN_AT_ONCE = 2  # one waits for the disk while the other is hashed


def write_rows(
    out: str | Path,
    source: RowSource,
    origin: Origin,
    *,
    shard_items: int | None = None,
    prepare: Prepare = lambda block, first: block,
    on_progress: OnProgress | None = None,
) -> Memory:
    """Write the rows of a source into a memory, or go on where a run was stopped.

    RAM holds a few shards: two are prepared and written by threads while the next one is read.

    Args:
        out: folder of the memory.
        source: items and rows.
        origin: what made the rows.
        shard_items: items a shard; None takes the power of two that fills some 64 MiB.
        prepare: see `Prepare`.
        on_progress: see `OnProgress`.

    Raises:
        ConfigError: no rows, ids that occur twice, or no row that can be kept.
        DimensionError: rows and ids are not equally many, or rows differ in width.
        LockedError, ResumeError, FormatError, WriteError: as `cmcr.memories.writer.open_writer`.
    """
    if shard_items is None:
        shard_items = shard_items_for(source.width, origin.dtype)
    survey = survey_rows(source)
    with open_writer(out, origin, survey.count, survey.digest, shard_items=shard_items) as writer:
        if writer is not None:
            _write_missing(writer, source, prepare, on_progress or (lambda share: None))
            _refuse_nothing(writer)
            writer.finish()
    return Memory(out)


def shard_items_for(width: int, dtype: str) -> int:
    """Choose how many rows a shard has: large files, since rows that exist already are soon written again."""
    return max(_FEWEST, 1 << (_SHARD_BYTES // (width * DTYPES[dtype].itemsize)).bit_length() - 1)


def _write_missing(writer: MemoryWriter, source: RowSource, prepare: Prepare, on_progress: OnProgress) -> None:
    done = len(writer.shards)
    with ThreadPoolExecutor(max_workers=_WRITTEN_AT_ONCE, thread_name_prefix="cmcr-write") as threads:
        under_way: deque[Future[None]] = deque()
        for number, block in _shards(source, writer):
            if len(under_way) == _WRITTEN_AT_ONCE:
                under_way.popleft().result()
            under_way.append(threads.submit(_write, writer, number, block, prepare))
            done += 1
            on_progress(done / (writer.count + 1))
        for written in under_way:
            written.result()
    on_progress(1.0)


def _write(writer: MemoryWriter, number: int, block: Block, prepare: Prepare) -> None:
    first = writer.items_of(number).start
    block = prepare(block, first)
    quarantined = [
        Quarantined(block.ids[place], block.sources[place], first + place, reason)
        for place, reason in sorted(block.missing.items())
    ]
    kept = [place for place in range(len(block.ids)) if place not in block.missing]
    items = _names(block, (lambda names: [names[place] for place in kept]) if block.missing else (lambda names: names))
    writer.write(number, block.rows, ItemPairs(*items), quarantined)


def _names(block: Block, take: Callable[[Sequence[str]], Sequence[str]]) -> tuple[Sequence[str], Sequence[str]]:
    """Take some of the ids and sources of a block; where the sources are the ids, they stay one sequence."""
    ids = take(block.ids)
    return ids, ids if block.sources is block.ids else take(block.sources)


def _shards(source: RowSource, writer: MemoryWriter) -> Iterator[tuple[int, Block]]:
    """Cut the blocks of a source into the shards that are not finished yet."""
    missing = writer.missing
    if not missing:
        return
    cutter = _Cutter(source, writer.items_of(missing[0]).start, writer.plan.run.shard_items)
    for number in range(missing[0], missing[-1] + 1):
        block = cutter.take(len(writer.items_of(number)))
        if number in missing:
            yield number, block
    if missing[-1] == writer.count - 1:
        cutter.expect_end()


class _Cutter:
    """Takes so and so many items from a source at a time."""

    def __init__(self, source: RowSource, start: int, size: int) -> None:
        self._source = source
        self._blocks = source.blocks(start, size)
        self._rest: Block | None = None
        self._position = start

    def take(self, count: int) -> Block:
        taken: list[Block] = []
        while count:
            block = self._rest if self._rest is not None else next(self._blocks, None)
            if block is None:
                raise DimensionError(
                    f"{self._source.description}: there are ids for more rows, but the rows end after {self._position}."
                )
            self._check_width(block.rows)
            head, self._rest = _cut(block, count)
            taken.append(head)
            self._position += len(head.ids)
            count -= len(head.ids)
        return taken[0] if len(taken) == 1 else _joined(taken)

    def expect_end(self) -> None:
        if self._rest is not None or any(len(block.ids) for block in self._blocks):
            raise DimensionError(f"{self._source.description}: there are more rows than the {self._position} ids.")

    def _check_width(self, rows: Tensor) -> None:
        if rows.ndim != 2 or rows.shape[1] != self._source.width:
            raise DimensionError(
                f"{self._source.description}: the first rows are {self._source.width} wide, those after row "
                f"{self._position} have the shape {tuple(rows.shape)}. All rows of a memory have one width."
            )


def _cut(block: Block, count: int) -> tuple[Block, Block | None]:
    if len(block.ids) <= count:
        return block, None
    head = {place: reason for place, reason in block.missing.items() if place < count}
    tail = {place - count: reason for place, reason in block.missing.items() if place >= count}
    row = count - len(head)
    return (
        Block(*_names(block, lambda names: names[:count]), block.rows[:row], head),
        Block(*_names(block, lambda names: names[count:]), block.rows[row:], tail),
    )


def _joined(blocks: Sequence[Block]) -> Block:
    ids: list[str] = []
    sources: list[str] = []
    missing: dict[int, str] = {}
    for block in blocks:
        missing.update({len(ids) + place: reason for place, reason in block.missing.items()})
        ids.extend(block.ids)
        sources.extend(block.sources)
    return Block(ids, sources, torch.cat([block.rows for block in blocks]), missing)


def _refuse_nothing(writer: MemoryWriter) -> None:
    if not any(shard.rows for shard in writer.shards.values()):
        raise ConfigError(
            f"{writer.folder}: none of the {writer.plan.run.items} rows can be used, see {writer.folder}/*.quarantine.jsonl."
        )

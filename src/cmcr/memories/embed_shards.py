"""Embed the shards of a run, one after another: what every engine does with the shards it is given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from cmcr.data.items import Entry, ItemList
from cmcr.errors import DimensionError, ResumeError, SampleError
from cmcr.memories.embed_failures import FailureLimit
from cmcr.memories.layout import Quarantined, Shard
from cmcr.memories.shards import as_kept
from cmcr.memories.writer import MemoryWriter
from cmcr.spaces.protocol import EncodedBatch, Space
from cmcr.spaces.tower import encode_batches_of

OnItems = Callable[[int], None]
"""Called with the number of items that were embedded or failed since the last call."""


class HasContents(Protocol):
    """A batch of items, whatever else is known of them."""

    @property
    def contents(self) -> Sequence[Any]:
        """What a space reads, item by item."""


BatchT = TypeVar("BatchT", bound=HasContents)


def encoded_with(
    space: Space, modality: str, batches: Iterable[BatchT], device: str | None
) -> Generator[tuple[BatchT, EncodedBatch], None, None]:
    """Embed batches as they come, a few being read and decoded ahead, and give each with its result."""
    drawn: deque[BatchT] = deque()

    def contents() -> Iterator[Sequence[Any]]:
        for batch in batches:
            drawn.append(batch)
            yield batch.contents

    with closing(_generator(encode_batches_of(space, contents(), modality, device))) as encoded_batches:
        for encoded in encoded_batches:
            yield drawn.popleft(), encoded


@dataclass(frozen=True)
class _Batch:
    """Items that are embedded together; they belong to one shard."""

    shard: int
    first: int
    entries: Sequence[tuple[str, str]]  # id and source
    contents: Sequence[Any]
    last: bool


@dataclass
class _Filling:
    """What is known of the shard that is being embedded."""

    rows: list[Tensor] = field(default_factory=list)
    items: list[tuple[str, str]] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)


def embed_shards(
    space: Space,
    modality: str,
    items: ItemList,
    writer: MemoryWriter,
    numbers: Sequence[int],
    *,
    batch_size: int,
    device: str | None,
    limit: FailureLimit,
    on_items: OnItems,
) -> Generator[Shard, None, None]:
    """Embed and write shards, reading and decoding ahead of the encoder, across the ends of shards.

    Batches never cross the end of a shard, so a shard's rows do not depend on where a run was stopped.

    Args:
        space: embeds.
        modality: of the items.
        items: the list of the run.
        writer: of the memory.
        numbers: of the shards within the run, ascending.
        batch_size: items per forward pass.
        device: where to compute; None leaves the encoder where it is.
        limit: counts what fails.
        on_items: see `OnItems`.

    Yields:
        each shard when it is written.

    Raises:
        TooManyFailuresError: the limit is exceeded.
        DimensionError: rows of different widths.
        ResumeError: the list has ended before it should.
        WriteError: no permission, disk full.
    """
    filling = _Filling()
    batches = _batches(items, writer, numbers, batch_size)
    with closing(encoded_with(space, modality, batches, device)) as results:
        for batch, encoded in results:
            failed = _fill(filling, batch, encoded, writer.plan.origin.dtype)
            limit.count(len(batch.entries), len(failed), failed[-1].reason if failed else "")
            on_items(len(batch.entries))
            if batch.last:
                yield writer.write(batch.shard, _joined(filling.rows), filling.items, filling.quarantined)
                filling = _Filling()


def _fill(filling: _Filling, batch: _Batch, encoded: EncodedBatch, dtype: str) -> list[Quarantined]:
    """Add a batch to its shard.

    Returns:
        the items of the batch that failed.
    """
    failed = [
        Quarantined(*batch.entries[place], batch.first + place, _reason(error, batch, place))
        for place, error in sorted(encoded.failures.items())
    ]
    filling.quarantined += failed
    filling.items += [entry for place, entry in enumerate(batch.entries) if place not in encoded.failures]
    if len(encoded.rows):
        filling.rows.append(as_kept(encoded.rows, dtype))
    return failed


def _joined(rows: list[Tensor]) -> Tensor:
    """Join the rows of a shard. Without any it has no width: what a space knows of its own may depend on what ran before."""
    widths = {part.shape[1] for part in rows}
    if len(widths) > 1:
        raise DimensionError(f"the rows of one shard have widths of {' and '.join(map(str, sorted(widths)))}.")
    return torch.cat(rows) if rows else torch.empty(0, 0)


def _reason(error: SampleError, batch: _Batch, place: int) -> str:
    """Say why an item failed, without the path of this machine: the same wherever the input lies."""
    content, (_, source) = batch.contents[place], batch.entries[place]
    return str(error).replace(str(content), source) if isinstance(content, Path) else str(error)


def _batches(items: ItemList, writer: MemoryWriter, numbers: Sequence[int], batch_size: int) -> Iterator[_Batch]:
    """Cut the items of the given shards into batches; the contents of other shards' items are not read."""
    walk, position = iter(items.walk()), 0
    for number in numbers:
        span = writer.items_of(number)
        _skip(walk, span.start - position)
        position = span.stop
        for first in range(span.start, span.stop, batch_size):
            stop = min(first + batch_size, span.stop)
            entries = []
            contents = []
            for entry in islice(walk, stop - first):
                entries.append((entry.id, entry.source))
                contents.append(entry.read())
            if len(entries) < stop - first:
                raise ResumeError(
                    f"the list of items ended after {first + len(entries)} of {writer.plan.run.items} items: it has changed "
                    "since the run began. What was finished is kept; bring the list back and run it again."
                )
            yield _Batch(number, first, entries, contents, stop == span.stop)


def _skip(walk: Iterator[Entry], count: int) -> None:
    for _ in islice(walk, count):
        pass


def _generator(batches: Iterator[Any]) -> Any:
    """Make sure that there is something to close: not every iterator can be."""
    yield from batches

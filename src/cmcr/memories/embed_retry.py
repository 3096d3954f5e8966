"""Try the items in quarantine again, and complete a finished memory with those that can be embedded now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmcr.data.items import ItemList
from cmcr.errors import DimensionError, ResumeError
from cmcr.memories.embed_shards import encoded_with, origin_of
from cmcr.memories.layout import (
    DTYPES,
    RUN,
    Contents,
    Quarantined,
    contents_in,
    items_in,
    quarantine_in,
    read_plan,
)
from cmcr.memories.shards import mapped_rows
from cmcr.memories.writer import Replacement, check_same_origin, clean, locked, replace_shards
from cmcr.spaces.protocol import Space

_Waiting = tuple[int, Quarantined]
"""The number of the shard of an item in quarantine, and what is known of the item."""

_Found = dict[int, tuple[Tensor, tuple[str, str]]]
"""By an item's position: its row, its id and source."""


def retry(
    space: Space,
    modality: str,
    items: ItemList,
    folder: Path,
    batch_size: int,
    device: str | None,
    report: Callable[[str, Mapping[str, Any]], None],
) -> int:
    """Embed the items in quarantine, found again in a list by their ids, and put their rows where they belong.

    Shards that gain rows are written again under other names, then one manifest replaces the other: killed in between, the
    memory is as it was.

    Args:
        space: embeds; the same model as before.
        modality: the memory's.
        items: the list of the run, with items that were fixed.
        folder: of a finished memory.
        batch_size: items per forward pass.
        device: where to compute; None leaves the encoder where it is.
        report: see `cmcr.memories.embed.OnEvent`.

    Returns:
        how many rows the memory has gained.

    Raises:
        ArtefactNotFoundError, FormatError: there is no finished memory.
        DimensionError: rows of another width than the memory's.
        LockedError, ResumeError, WriteError: as `cmcr.embed`.
    """
    contents_in(folder)  # before the lock, which would make a folder that is not there
    with locked(folder):
        clean(folder)  # what a retry that was killed left behind
        contents = contents_in(folder)
        if read_plan(folder) is not None:
            raise ResumeError(
                f"{folder}: something is being appended to it, and that is not finished. Finish that first, or remove "
                f"{folder / RUN}, which gives up only what was being appended."
            )
        check_same_origin(folder, contents.origin, origin_of(space, modality, contents.origin.dtype))
        waiting = {
            item.id: (n, item) for n, shard in enumerate(contents.shards) for item in quarantine_in(folder, shard)
        }
        report("started", {"items": len(waiting), "done": 0, "shards": 0})
        found: defaultdict[int, _Found] = defaultdict(dict)
        batches = _batches(items, waiting, batch_size)
        with closing(encoded_with(space, modality, batches, device)) as results:
            for batch, encoded in results:
                if len(encoded.rows) and encoded.rows.shape[1] != contents.width:
                    raise DimensionError(
                        f"the rows are {encoded.rows.shape[1]} wide now, the memory's {contents.width}."
                    )
                good = [known for place, known in enumerate(batch) if place not in encoded.failures]
                for row, (number, item) in zip(encoded.rows.to(DTYPES[contents.origin.dtype]), good, strict=True):
                    found[number][item.position] = (row, (item.id, item.source))
                report("items", {"count": len(batch)})
        if found:
            completed = (_completed(folder, contents, number, found[number]) for number in sorted(found))
            for shard in replace_shards(folder, contents, completed):
                report("shard", {"shard": shard.name, "rows": shard.rows, "quarantined": shard.quarantined})
    return sum(map(len, found.values()))


def _batches(
    items: ItemList, waiting: Mapping[str, _Waiting], batch_size: int
) -> Iterator[tuple[list[_Waiting], list[Any]]]:
    """Find the items in quarantine in the list."""
    found = ((waiting[entry.id], entry.read()) for entry in items.walk() if entry.id in waiting)
    while some := list(islice(found, batch_size)):
        yield [known for known, _ in some], [content for _, content in some]


def _completed(folder: Path, contents: Contents, number: int, found: _Found) -> Replacement:
    """Put new rows between the old ones of a shard."""
    shard = contents.shards[number]
    quarantined = {item.position: item for item in quarantine_in(folder, shard)}
    positions = range(shard.first_item, shard.first_item + shard.items)
    kept = [position for position in positions if position not in quarantined]
    rows = mapped_rows(folder, shard, contents.origin.dtype)
    known = {**dict(zip(kept, zip(rows, items_in(folder, shard), strict=True), strict=True)), **found}
    merged = [known[position] for position in positions if position in known]
    return (
        number,
        torch.stack([row for row, _ in merged]),
        [item for _, item in merged],
        [item for position, item in quarantined.items() if position not in found],
    )

"""Try the items in quarantine again, and complete a finished memory with those that can be embedded now."""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cmcr.arrays import check_count
from cmcr.data.items import ItemList, open_items
from cmcr.errors import ArtefactNotFoundError, DimensionError, ResumeError
from cmcr.memories.embed import OnEvent, opened, origin_of, shard_facts
from cmcr.memories.embed_shards import encoded_with
from cmcr.memories.layout import DTYPES, RUN, Contents, Quarantined, items_in, next_generation, quarantine_in, read_plan
from cmcr.memories.memory import Memory
from cmcr.memories.shards import mapped_rows
from cmcr.memories.writer import Replacement, check_same_origin, clean, finished_contents, locked, replace_shards
from cmcr.spaces.protocol import Space

_Waiting = tuple[int, Quarantined]
"""The number of the shard of an item in quarantine, and what is known of the item."""

_Found = Mapping[int, tuple[Tensor, tuple[str, str]]]
"""By an item's position: its row, its id and source."""


def retry_quarantined(
    space: str | Space,
    modality: str,
    inputs: str | Path | ItemList,
    out: str | Path,
    *,
    column: str | None = None,
    id_column: str | None = None,
    batch_size: int = 32,
    device: str | None = None,
    on_event: OnEvent | None = None,
) -> Memory:
    """Embed the items in quarantine, found again in the input by their ids, and put their rows where they belong.

    Shards that gain rows are written again under other names, then one manifest replaces the other: killed in between, the
    memory is as it was.

    Args:
        space: the space, or its name; the same model as before.
        modality: the memory's.
        inputs: the input of the run, fixed (see `cmcr.memories.embed.embed`).
        out: a finished memory.
        column: of a table, which column holds the texts or paths.
        id_column: of a table, which column holds the ids.
        batch_size: items per forward pass.
        device: where to compute; None leaves the encoder where it is.
        on_event: see `cmcr.memories.embed.OnEvent`.

    Returns:
        the memory, with the rows that could be added.

    Raises:
        ArtefactNotFoundError: there is no finished memory.
        DimensionError: rows of another width than the memory's.
        LockedError, ResumeError, WriteError, ConfigError: as `cmcr.memories.embed.embed`.
    """
    encoder = opened(space, modality)
    check_count("batch_size", batch_size)
    report = on_event or (lambda event, facts: None)
    folder = Path(out)
    if not folder.is_dir():
        raise ArtefactNotFoundError(errno.ENOENT, "there is no memory here to be completed", str(folder))
    items = inputs if isinstance(inputs, ItemList) else open_items(inputs, modality, column=column, id_column=id_column)
    with locked(folder):
        contents = _finished(folder)
        check_same_origin(folder, contents.origin, origin_of(encoder, modality, contents.origin.dtype))
        waiting = {
            item.id: (n, item) for n, shard in enumerate(contents.shards) for item in quarantine_in(folder, shard)
        }
        report("started", {"items": len(waiting), "done": 0, "shards": 0})
        found: defaultdict[int, dict[int, tuple[Tensor, tuple[str, str]]]] = defaultdict(dict)
        batches = _batches(items, waiting, batch_size)
        with closing(encoded_with(encoder, modality, batches, device)) as results:
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
            completed = ((number, _completed(folder, contents, number, found[number])) for number in sorted(found))
            for shard in replace_shards(folder, contents, completed):
                report("shard", shard_facts(shard))
    memory = Memory(folder)
    facts = {"rows": len(memory), "quarantined": memory.contents[0].quarantined}
    report("finished", {**facts, "new": sum(map(len, found.values()))})
    return memory


def _finished(folder: Path) -> Contents:
    contents = finished_contents(folder)
    if contents is None:
        raise ArtefactNotFoundError(
            errno.ENOENT, "the memory is not finished: run without --retry-quarantined first", str(folder)
        )
    clean(folder)  # what a retry that was killed left behind
    if read_plan(folder) is not None:
        raise ResumeError(
            f"{folder}: something is being appended to it, and that is not finished. Finish that first, or remove "
            f"{folder / RUN}, which gives up only what was being appended."
        )
    return contents


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
        next_generation(shard.name),
        torch.stack([row for row, _ in merged]),
        [item for _, item in merged],
        [item for position, item in quarantined.items() if position not in found],
    )

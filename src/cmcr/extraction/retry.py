"""Try the items in quarantine again, and complete a finished memory with those that can be embedded now."""

from __future__ import annotations

import errno
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from cmcr.data.items import Item, ItemList, open_items
from cmcr.errors import ArtefactNotFoundError, ResumeError
from cmcr.extraction.embed import OnEvent, opened, origin_of, shard_facts
from cmcr.memories.layout import PLAN, RUN, Contents, Quarantined, embeddings_file, next_generation
from cmcr.memories.memory import Memory, items_in, quarantine_in
from cmcr.memories.shards import MappedRows, as_kept, kept_tensor
from cmcr.memories.writer import check_same_origin, clean, finished_contents, locked, replace_shards
from cmcr.spaces.protocol import Space
from cmcr.spaces.tower import encode_batches_of

_Found = dict[int, tuple[Tensor, tuple[str, str]]]
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

    Shards that gain rows are written anew under other names, then one manifest takes the place of the other: killed in
    between, the memory is as it was.

    Args:
        space: the space, or its name; the same model as before.
        modality: the memory's.
        inputs: the input of the run, mended (see `cmcr.extraction.embed.embed`).
        out: a finished memory.
        column: of a table, which column holds the texts or paths.
        id_column: of a table, which column holds the ids.
        batch_size: items per forward pass.
        device: where to compute; None leaves the encoder where it is.
        on_event: see `cmcr.extraction.embed.OnEvent`.

    Returns:
        the memory, with the rows that could be added.

    Raises:
        ArtefactNotFoundError: there is no finished memory.
        LockedError, ResumeError, WriteError, ConfigError: as `cmcr.extraction.embed.embed`.
    """
    encoder = opened(space, modality)
    tell = on_event or (lambda event, facts: None)
    items = inputs if isinstance(inputs, ItemList) else open_items(inputs, modality, column=column, id_column=id_column)
    folder = Path(out)
    if not folder.is_dir():
        raise ArtefactNotFoundError(errno.ENOENT, "there is no memory here to be completed", str(folder))
    with locked(folder):
        contents = _finished(folder)
        clean(folder)  # what a retry that was killed left behind
        _refuse_within_append(folder)
        check_same_origin(folder, contents.origin, origin_of(encoder, modality, contents.origin.dtype))
        waiting = {
            item.id: (place, item)
            for place, shard in enumerate(contents.shards)
            for item in quarantine_in(folder, shard)
        }
        tell("started", {"items": len(waiting), "done": 0, "shards": 0})
        found: dict[int, _Found] = defaultdict(dict)
        for batch in _batches(items, waiting, batch_size):
            (encoded,) = encode_batches_of(encoder, [[item.content for item in batch]], modality, device)
            good = [item.id for position, item in enumerate(batch) if position not in encoded.failures]
            for row, id_ in zip(as_kept(encoded.rows, contents.origin.dtype), good, strict=True):
                place, item = waiting[id_]
                found[place][item.position] = (row, (item.id, item.source))
            tell("items", {"count": len(batch)})
        completed = {place: _completed(folder, contents, place, found[place]) for place in sorted(found)}
        if completed:
            for shard in replace_shards(folder, contents, completed):
                tell("shard", shard_facts(shard))
    memory = Memory(folder)
    facts = {"rows": len(memory), "quarantined": memory.contents[0].quarantined}
    tell("finished", {**facts, "new": sum(map(len, found.values()))})
    return memory


def _finished(folder: Path) -> Contents:
    contents = finished_contents(folder)
    if contents is None:
        raise ArtefactNotFoundError(
            errno.ENOENT, "the memory is not finished: run without --retry-quarantined first", str(folder)
        )
    return contents


def _refuse_within_append(folder: Path) -> None:
    """Leave the finished shards of an append alone that was stopped."""
    if (folder / RUN / PLAN).exists():
        raise ResumeError(
            f"{folder}: an append was begun here and not finished. Run it again with --append until it ends, or give its "
            f"shards up by removing {folder / RUN}; then retry."
        )


def _batches(
    items: ItemList, waiting: Mapping[str, tuple[int, Quarantined]], batch_size: int
) -> Iterator[Sequence[Item]]:
    """Find the items in quarantine in the list."""
    found = (Item(entry.id, entry.source, entry.read()) for entry in items.walk() if entry.id in waiting)
    while batch := list(islice(found, batch_size)):
        yield batch


def _completed(
    folder: Path, contents: Contents, place: int, found: _Found
) -> tuple[str, Tensor, list[tuple[str, str]], list[Quarantined]]:
    """Put new rows between the old ones of a shard.

    Returns:
        the name, the rows, the items and the rest of the quarantine of the shard that shall take its place.
    """
    shard, dtype = contents.shards[place], contents.origin.dtype
    quarantined = {item.position: item for item in quarantine_in(folder, shard)}
    positions = range(shard.first_item, shard.first_item + shard.items)
    kept = [position for position in positions if position not in quarantined]
    rows = kept_tensor(MappedRows(folder / embeddings_file(shard.name), shard, dtype).rows, dtype)
    known: _Found = dict(zip(kept, zip(rows, items_in(folder, shard), strict=True), strict=True))
    merged = [(known | found)[position] for position in positions if position in known or position in found]
    return (
        next_generation(shard.name),
        torch.stack([row for row, _ in merged]),
        [item for _, item in merged],
        [item for position, item in quarantined.items() if position not in found],
    )

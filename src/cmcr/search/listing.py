"""Where the items of an index are: their files, texts and cells, found by their ids in the lists that were embedded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.data.items import Entry, ItemList, TableItems, TarItems
from cmcr.data.items.files import SelectedItems
from cmcr.search.sources import Source

Row = tuple[Sequence[Any], Mapping[str, Any] | None]
"""An item as `cmcr.search.items.ItemWriter` takes it."""

_TAKEN = ("text", "path")  # columns of a table that the item table has anyway


def rows_of_items(
    sources: Sequence[Source], lists: Mapping[int, ItemList], first: int, live: NDArray[np.bool_], used: set[int]
) -> Iterator[Row]:
    """Give every item of a corpus, whose first has the number `first`, as a row of the item table.

    Items of a memory that no list speaks of are live, with the file that their id names where the memory knows it. If a list
    speaks of some of them, the others are taken for gone. Of equal ids in two memories, the first list has those of the
    first.

    What is filled in: `live` `(N,)` says which items are there, `used` which of the lists, by number, have one of them.
    """
    places, start = list[dict[str, int]](), 0
    for source in sources:
        places.append({id_: start + row for row, id_ in enumerate(source.memory.ids)})
        start += len(source.memory)
    listed = np.zeros(start, dtype=bool)
    given = [place for source, place in zip(sources, places, strict=True) if source.items is None]
    embedded = [(-1, s.items, [place]) for s, place in zip(sources, places, strict=True) if s.items is not None]
    for number, items, targets in [*embedded, *((number, items, given) for number, items in lists.items())]:
        kind = sources[0].memory
        for entry in items.walk():
            found = (place[entry.id] for place in targets if entry.id in place)
            position = next((each for each in found if not listed[each]), None)
            if position is not None:
                listed[position] = True
                used.add(number)
                path, folder, text, live[position] = _whereabouts(entry, items, kind.modality)
                fixed = (entry.id, kind.modality, kind.space, entry.source, path, folder, text, int(live[position]))
                yield (first + position, *fixed), _cells(entry, items)
    for source, place in zip(sources, places, strict=True):
        memory, known = source.memory, any(listed[position] for position in place.values())
        for (id_, from_where), named, position in zip(memory.items(), memory.paths(), place.values(), strict=True):
            if not listed[position]:
                live[position] = not known
                folder = from_where.rpartition("/")[0]
                file = None if named is None else str(named)
                fixed = (id_, memory.modality, memory.space, from_where, file, folder, None, int(not known))
                yield (first + position, *fixed), None


def _whereabouts(entry: Entry, items: ItemList, modality: str) -> tuple[str | None, str, str | None, bool]:
    """Find the file of an item, its folder, its text, and whether it is there. Nothing is read but texts."""
    content = None if isinstance(items, TarItems) and modality != "text" else entry.read()
    cell = (entry.cells or {}).get("text")
    text = content if modality == "text" else cell
    folder, place, there = entry.source.rpartition("/")[0], None, True
    if isinstance(content, Path):
        place = os.path.abspath(content)  # noqa: PTH100 - keeps links
        if isinstance(items, TableItems):
            folder, there = _below(place, items), os.path.isfile(place)  # noqa: PTH113 - raises nothing
    return place, folder, text if isinstance(text, str) else None, there


def _below(place: str, items: SelectedItems) -> str:
    """Find the folder of a file, relative to that of its table where it lies below it."""
    root = items.selection.root
    start = os.path.abspath(root if root.is_dir() else root.parent) + os.sep  # noqa: PTH100
    return place.removeprefix(start).replace(os.sep, "/").rpartition("/")[0]


def _cells(entry: Entry, items: ItemList) -> Mapping[str, Any] | None:
    if not entry.cells or not isinstance(items, TableItems):
        return None
    taken = (*_TAKEN, "id") if items.id_column == "id" else _TAKEN
    return {name: cell for name, cell in entry.cells.items() if name not in taken}

"""Pairs of one's own: a table with a column for each of two modalities."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import Any

from cmcr.data.items import open_items
from cmcr.errors import ConfigError, SampleError
from cmcr.evaluation.datasets.records import RetrievalRecord
from cmcr.evaluation.metrics import PerQuery


def read_pairs(table: Path, modalities: Collection[str], limit: int | None = None) -> RetrievalRecord:
    """Read pairs from a CSV, TSV, JSONL or Parquet file, each row a pair.

        audio,image
        sounds/dog.wav,pictures/dog.jpg

    Two columns are named by modalities; files are named by paths from the folder of the table, texts stand in it. A cell that
    occurs several times is one item with several partners, such as the five captions of a picture.

    Args:
        table: the file.
        modalities: that the connection can compare.
        limit: take so many rows only, the first; None takes all.

    Raises:
        ConfigError: not two such columns, no rows, or an empty cell.
        ReadError: the system refuses to read it, or it is damaged.
    """
    lists, reason = {}, ""
    for name in modalities:
        try:
            lists[name] = open_items(table, name, column=name)
        except ConfigError as error:
            reason = str(error)
    if len(lists) != 2:
        raise ConfigError(
            f"{table}: expected two columns named by modalities of the connection ({', '.join(modalities)}), got "
            f"{' and '.join(lists) or 'none'}. {reason}"
        )
    named = tuple(lists)
    cells = [[entry.read() for entry in islice(items.walk(), limit)] for items in lists.values()]
    for name, column in zip(named, cells, strict=True):
        wrong = next((cell for cell in column if isinstance(cell, SampleError)), None)
        if wrong is not None:
            raise ConfigError(f"{table}: column {name!r}: {wrong}")
    first, second = (list(dict.fromkeys(column)) for column in cells)
    place = {item: row for row, item in enumerate(second)}
    partners: dict[Any, dict[int, None]] = {item: {} for item in first}
    for one, other in zip(*cells, strict=True):
        partners[one][place[other]] = None
    ids = [[_id_of(item, row) for row, item in enumerate(items)] for items in (first, second)]
    positives = PerQuery.several([list(found) for found in partners.values()])
    return RetrievalRecord(table.name, (named[0], named[1]), first, second, ids[0], ids[1], positives)


def _id_of(item: Any, row: int) -> str:
    return f"{row}: {item.name if isinstance(item, Path) else item!s:.60}"

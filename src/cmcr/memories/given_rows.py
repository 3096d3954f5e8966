"""Rows as a caller gives them: an array, blocks, or blocks with ids."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmcr.arrays import rows_of
from cmcr.errors import ConfigError, DimensionError, DtypeError, TooFewRowsError, WriteError
from cmcr.memories.array_rows import ArrayRows, FileRows
from cmcr.memories.listed_items import ListedItems
from cmcr.memories.row_source import Block, RowSource

_NAME = "the rows"


@contextmanager
def given_rows(
    blocks: Any, ids: Sequence[str] | None, sources: Sequence[str] | None, beside: Path
) -> Iterator[RowSource]:
    """Turn what a caller gives into a source of rows; see `cmcr.memories.precomputed.write_memory`.

    Args:
        blocks: an array, an iterable of blocks, or a function that returns an iterator of them.
        ids: of all rows; None for those of the blocks, or numbers.
        sources: of all rows; None for the ids.
        beside: rows that can be walked only once lie in a temporary file beside this path.

    Raises:
        ConfigError, DimensionError, DtypeError: what is given cannot be rows.
        WriteError: the temporary file cannot be written.
    """
    if isinstance(blocks, np.ndarray | Tensor):
        rows = rows_of(blocks, _NAME, at_least=0)
        yield ArrayRows(_NAME, rows, ListedItems(len(rows), ids, sources))
        return
    walk = _walk_of(blocks)
    once = isinstance(blocks, Iterator)
    if once and ids is None:
        with tempfile.TemporaryDirectory(prefix=f".{beside.name}.", dir=_folder_beside(beside)) as folder:
            yield _spooled(walk(), sources, Path(folder) / "rows")
        return
    first, whole = _peeked(walk())
    if once:
        # The only walk there is has begun.
        yield _WalkedRows(lambda: whole, first, ListedItems(len(ids or ()), ids, sources))
    elif ids is None:
        yield _walked_twice(walk, first, sources)
    else:
        yield _WalkedRows(walk, first, ListedItems(len(ids), ids, sources))


class _WalkedRows(RowSource):
    """Rows of blocks, whose ids are known beforehand."""

    def __init__(
        self, walk: Callable[[], Iterator[Any]], first: Any, items: ListedItems, *, ids_given: bool = True
    ) -> None:
        self.description = _NAME
        self.width = _parts(first)[0].shape[1]
        self.numbered = items.numbered
        self._walk = walk
        self._ids_given = ids_given
        self._items = items

    def ids(self) -> Iterator[Sequence[str]]:
        return self._items.ids()

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        position = 0
        for given in self._walk():
            rows, own_ids = _parts(given)
            if own_ids is not None and self._ids_given:
                raise ConfigError(f"{_NAME}: expected ids either for all rows (ids=) or with the blocks, got both.")
            before, position = position, position + len(rows)
            if position > self._items.count:
                raise DimensionError(
                    f"{_NAME}: expected as many rows as ids, got more than the {self._items.count} ids."
                )
            if position > start:
                skipped = max(start - before, 0)
                yield Block(*self._items.part(before + skipped, position), rows[skipped:])


def _walked_twice(walk: Callable[[], Iterator[Any]], first: Any, sources: Sequence[str] | None) -> RowSource:
    """Collect the ids of blocks, or count their rows, in a walk of its own."""
    collected, count = _ids_in(walk())
    return _WalkedRows(walk, first, ListedItems(count, collected, sources), ids_given=False)


def _ids_in(walk: Iterator[Any]) -> tuple[list[str] | None, int]:
    ids: list[str] = []
    count, with_ids = 0, False
    for given in walk:
        rows, block_ids = _parts(given)
        with_ids = _same_kind(with_ids, block_ids is not None, count)
        ids.extend(block_ids or ())
        count += len(rows)
    return (ids if with_ids else None), count


def _same_kind(before: bool, now: bool, count: int) -> bool:
    if count and before != now:
        raise ConfigError(f"{_NAME}: expected ids with all blocks or with none; that changes after row {count}.")
    return now


def _spooled(walk: Iterator[Any], sources: Sequence[str] | None, path: Path) -> RowSource:
    """Put rows that can be walked only once into a file."""
    ids: list[str] = []
    count, width, with_ids = 0, 0, False
    dtype: np.dtype[Any] | None = None
    with path.open("wb") as file:
        for given in walk:
            rows, block_ids = _parts(given)
            values = (rows.float() if rows.dtype == torch.bfloat16 else rows).detach().cpu().numpy()
            dtype, width = dtype or values.dtype, width or values.shape[1]
            if values.dtype != dtype or values.shape[1] != width:
                raise DimensionError(
                    f"{_NAME}: the first are {width} wide {dtype}, those after row {count} {values.shape[1]} wide "
                    f"{values.dtype}. All blocks have one width and dtype."
                )
            with_ids = _same_kind(with_ids, block_ids is not None, count)
            ids.extend(block_ids or ())
            count += len(values)
            try:
                file.write(np.ascontiguousarray(values).data)
                file.flush()
            except OSError as error:
                raise WriteError(error.errno or 5, f"could not write ({error.strerror})", str(path)) from error
    if dtype is None:
        raise TooFewRowsError(f"{_NAME}: expected at least one block of rows, got none.")
    items = ListedItems(count, ids if with_ids else None, sources)
    return FileRows(_NAME, path, offset=0, dtype=dtype, width=width, items=items)


def _parts(given: Any) -> tuple[Tensor, list[str] | None]:
    """Take a block apart: its rows, and its ids if it has any."""
    if not isinstance(given, tuple):
        return rows_of(given, _NAME, at_least=0), None
    if len(given) != 2:
        raise ConfigError(f"{_NAME}: expected blocks of rows, or pairs (rows, ids), got a tuple of {len(given)}.")
    rows = rows_of(given[0], _NAME, at_least=0)
    ids = given[1].tolist() if isinstance(given[1], np.ndarray) else list(given[1])
    if len(ids) != len(rows):
        raise DimensionError(f"{_NAME}: a block has {len(rows)} rows and {len(ids)} ids.")
    return rows, ids


def _peeked(walk: Iterator[Any]) -> tuple[Any, Iterator[Any]]:
    """Look at the first block of a walk without losing it."""
    for first in walk:
        return first, chain([first], walk)
    raise TooFewRowsError(f"{_NAME}: expected at least one block of rows, got none.")


def _walk_of(blocks: Any) -> Callable[[], Iterator[Any]]:
    if callable(blocks):
        return lambda: iter(blocks())
    if isinstance(blocks, Iterable) and not isinstance(blocks, str | bytes):
        return lambda: iter(blocks)
    raise DtypeError(
        f"{_NAME}: expected an array (n, D), an iterable of such blocks or of (rows, ids), got {type(blocks).__name__}."
    )


def _folder_beside(path: Path) -> Path:
    folder = path.absolute().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(error.errno or 5, f"could not write ({error.strerror})", str(folder)) from error
    return folder

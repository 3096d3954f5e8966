"""Rows that lie in an array, or one after another in a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmcr.errors import ReadError
from cmcr.memories.listed_items import ListedItems
from cmcr.memories.row_source import Block, RowSource


class ArrayRows(RowSource):
    """The rows of an array.

    Args:
        description: for messages.
        rows: `(n, D)`; a memory map stays one.
        items: their ids and sources.
    """

    def __init__(self, description: str, rows: Tensor, items: ListedItems) -> None:
        self.description = description
        self.width = rows.shape[1]
        self.numbered = items.numbered
        self._rows = rows
        self._items = items

    def ids(self) -> Iterator[Sequence[str]]:
        """Give the ids, some at a time."""
        return self._items.ids()

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Give all rows from `start` on, `size` at a time."""
        for first in range(start, len(self._rows), size):
            yield Block(*self._items.part(first, first + size), self._rows[first : first + size])


class FileRows(RowSource):
    """Rows that lie one after another in a file.

    They are read, not mapped: pages of a map would count as the process's, as many as the file is large.

    Args:
        description: for messages.
        path: of the file.
        offset: where the first row begins, in bytes.
        dtype: of the rows.
        width: width D.
        items: ids and sources.
    """

    def __init__(
        self, description: str, path: Path, *, offset: int, dtype: np.dtype[Any], width: int, items: ListedItems
    ) -> None:
        self.description = description
        self.width = width
        self.numbered = items.numbered
        self._path = path
        self._offset = offset
        self._dtype = dtype
        self._items = items

    def ids(self) -> Iterator[Sequence[str]]:
        """Give the ids, some at a time."""
        return self._items.ids()

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Give all rows from `start` on, `size` at a time."""
        for first in range(start, self._items.count, size):
            ids, sources = self._items.part(first, first + size)
            yield Block(ids, sources, self._read(first, len(ids)))

    def _read(self, first: int, count: int) -> Tensor:
        offset = self._offset + first * self.width * self._dtype.itemsize
        try:
            values = np.fromfile(self._path, dtype=self._dtype, count=count * self.width, offset=offset)
        except OSError as error:
            raise ReadError(error.errno or 5, f"could not read ({error.strerror})", str(self._path)) from error
        if values.size != count * self.width:
            end = first + values.size // self.width
            raise ReadError(5, f"expected {self._items.count} rows, the file ends in row {end}", str(self._path))
        return torch.from_numpy(values.astype(self._dtype.newbyteorder("="), copy=False).reshape(count, self.width))

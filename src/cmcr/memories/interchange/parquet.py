"""Parquet: a column of embeddings, and columns of ids and sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmcr.errors import ArtefactNotFoundError, ConfigError, DimensionError, TooFewRowsError
from cmcr.memories.interchange.exported import Exported
from cmcr.memories.interchange.pyarrow_tables import opened, pyarrow, strings, written_strings
from cmcr.memories.row_source import Block, RowSource

EMBEDDING, ID, SOURCE = "embedding", "id", "source"


class ParquetRows(RowSource):
    """The rows of one Parquet file, or of all in a folder, by their names.

    Args:
        path: the file or folder.
        column: of the embeddings; None for the only one that holds lists of floats.
        id_column: None for "id" if there is one, else rows are numbered as `name.parquet:0`.

    Raises:
        ArtefactNotFoundError, ReadError, FormatError: files that are not there or not what they should be.
        ConfigError: no such column, or several that could be meant.
        DimensionError, TooFewRowsError: rows of several widths, or none.
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, path: Path, *, column: str | None = None, id_column: str | None = None) -> None:
        self.description = str(path)
        self._files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not self._files:
            raise ArtefactNotFoundError(2, "there are no *.parquet files here", str(path))
        with opened(self._files[0]) as table:
            self._column = _embedding_column(self._files[0], table.schema_arrow, column)
            names = table.schema_arrow.names
        if id_column is not None and id_column not in names:
            raise ConfigError(f"{self._files[0]}: has no column {id_column!r}, its columns are {', '.join(names)}.")
        self._id_column = id_column or (ID if ID in names else None)
        self._source_column = SOURCE if SOURCE in names else None
        self.width = self._first_width()

    def ids(self) -> Iterator[Sequence[str]]:
        """Give the ids, some at a time."""
        for path in self._files:
            with opened(path) as table:
                if self._id_column is None:
                    yield [f"{path.name}:{row}" for row in range(table.metadata.num_rows)]
                else:
                    yield from strings(path, self._checked(path, table), self._id_column)

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Give all rows from `start` on, `size` at a time within a file."""
        position = 0
        for path in self._files:
            with opened(path) as table:
                count = table.metadata.num_rows
                if position + count > start:
                    yield from self._blocks_in(path, self._checked(path, table), max(start - position, 0), size)
                position += count

    def _blocks_in(self, path: Path, table: Any, start: int, size: int) -> Iterator[Block]:
        columns = [name for name in (self._id_column, self._source_column) if name]
        first = 0
        for batch in table.iter_batches(batch_size=size, columns=list({self._column, *columns})):
            last = first + batch.num_rows
            if last > start:
                kept = batch.slice(max(start - first, 0))
                origin = last - kept.num_rows
                named = [f"{path.name}:{row}" for row in range(origin, last)]
                ids = [str(id_) for id_ in kept.column(self._id_column).to_pylist()] if self._id_column else named
                sources = _sources(kept.column(self._source_column).to_pylist(), ids) if self._source_column else named
                yield Block(ids, sources, self._rows(path, kept.column(self._column), origin))
            first = last

    def _rows(self, path: Path, lists: Any, first: int) -> Tensor:
        values = lists.flatten().to_numpy(zero_copy_only=False)
        lengths = pyarrow().compute.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero((lengths != self.width) | lists.is_null().to_numpy(zero_copy_only=False))
        if wrong.size:
            raise DimensionError(
                f"{path}: expected {self.width} values in each row of {self._column!r}, got {lengths[wrong[0]]} in row "
                f"{first + int(wrong[0])}."
            )
        return torch.from_numpy(np.array(values).reshape(len(lists), self.width))

    def _checked(self, path: Path, table: Any) -> Any:
        names = [self._column, self._id_column, self._source_column]
        absent = [name for name in names if name is not None and name not in table.schema_arrow.names]
        if absent:
            raise ConfigError(f"{path}: has no column {absent[0]!r}, which {self._files[0].name} has.")
        return table

    def _first_width(self) -> int:
        for path in self._files:
            with opened(path) as table:
                for batch in self._checked(path, table).iter_batches(batch_size=1, columns=[self._column]):
                    width = len(batch.column(0)[0].as_py() or ())
                    if width == 0:
                        raise DimensionError(f"{path}: the first row of {self._column!r} has no values.")
                    return width
        raise TooFewRowsError(f"{self.description}: expected at least 1 row, got none.")


def _sources(given: Sequence[Any], ids: Sequence[str]) -> Sequence[str]:
    return [id_ if source is None else str(source) for source, id_ in zip(given, ids, strict=True)]


def _embedding_column(path: Path, schema: Any, asked: str | None) -> str:
    types = pyarrow().types
    found = [
        field.name
        for field in schema
        if (types.is_list(field.type) or types.is_large_list(field.type) or types.is_fixed_size_list(field.type))
        and types.is_floating(field.type.value_type)
    ]
    if asked is not None and asked in found:
        return asked
    if asked is None and len(found) == 1:
        return str(found[0])
    said = ", ".join(found) if found else "none"
    wanted = "one column of lists of floats" if asked is None else f"lists of floats in the column {asked!r}"
    raise ConfigError(f"{path}: expected {wanted}, columns of that kind: {said}. Name one with --column.")


def write_parquet(exported: Exported, path: Path) -> None:
    """Write one file with the columns `id`, `source` and `embedding`, a list of fixed length."""
    arrow = pyarrow()
    floats = arrow.list_(arrow.from_numpy_dtype(exported.dtype), exported.width)
    schema = arrow.schema([(ID, arrow.string()), (SOURCE, arrow.string()), (EMBEDDING, floats)])
    # Embeddings hardly compress, and dictionaries of them cost time.
    with arrow.parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for block in exported.blocks():
            values = arrow.array(np.ascontiguousarray(block.rows).reshape(-1))
            lists = arrow.FixedSizeListArray.from_arrays(values, exported.width)
            columns = [written_strings(block.ids), written_strings(block.sources), lists]
            writer.write_batch(arrow.record_batch(columns, schema=schema))

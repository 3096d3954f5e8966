"""Parquet files as lists, through pyarrow (the extra `parquet`): one item a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmcr.data.items.cells import DamagedRow
from cmcr.data.items.reading import damaged, reading
from cmcr.errors import missing_dependency

_BATCH_ROWS = 64  # cells may hold whole pictures


class ParquetTable:
    """The rows of a Parquet file, read some at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """The names of the columns.

        Raises:
            MissingDependencyError: pyarrow is not installed.
            ReadError: the system refuses to read the file, or it is no whole Parquet file.
        """
        with self._opened() as file:
            return list(file.schema_arrow.names)

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any] | DamagedRow]]:
        """Give each row with its number, from 1; one with a string that is not UTF-8 is a `DamagedRow`."""
        number = 0
        with self._opened() as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns), use_threads=False):
                cells = {column: batch.column(column) for column in columns}
                for place in range(batch.num_rows):
                    number += 1
                    yield number, _row(cells, place)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise missing_dependency("pyarrow", extra="parquet", purpose="Parquet files") from error
        with reading(self.path), self.path.open("rb") as file:
            try:
                with parquet.ParquetFile(file) as opened:
                    yield opened
            except (pyarrow.ArrowException, OSError) as error:  # the latter for pages that cannot be decompressed
                raise damaged(self.path, "Parquet file", error) from error


def _row(cells: Mapping[str, Any], place: int) -> Mapping[str, Any] | DamagedRow:
    try:
        return {column: values[place].as_py() for column, values in cells.items()}
    except UnicodeDecodeError as error:
        return DamagedRow(f"not UTF-8: byte {error.start} of a cell. Write it as UTF-8.", error.object)

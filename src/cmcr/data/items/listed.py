"""Items that files list: lines, or rows of tables, one file after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from cmcr.data.items.cells import DamagedRow, content_of, mark_of
from cmcr.data.items.csv_table import CsvTable
from cmcr.data.items.endings import LINES, ending_of, kind_of
from cmcr.data.items.item import Entry, ItemList
from cmcr.data.items.json_table import JsonLines
from cmcr.data.items.lines import Lines
from cmcr.data.items.parquet_table import ParquetTable
from cmcr.data.items.reading import as_id
from cmcr.data.items.selection import Selection
from cmcr.errors import ConfigError, SampleError, unknown_name


class Table(Protocol):
    """A file of rows."""

    path: Path

    def names(self) -> list[str] | None:
        """The columns there are; `None` for a file without columns."""

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any] | DamagedRow]]:
        """Give the number of each row and its cells, at least those of `columns` that it has."""


class ListedItems(ItemList):
    """Each line or row is one item; its id is the file and its number, or a cell.

    Args:
        selection: the files.
        modality: what the items are; texts stand in the rows themselves, others are named by paths from the file's folder.
        description: for messages.
        column: which column holds the texts or paths; `None`: "text" for texts, else "path" or the modality's own name.
        id_column: which column holds the ids; `None`: none does.
    """

    def __init__(
        self, selection: Selection, modality: str, description: str, column: str | None, id_column: str | None
    ) -> None:
        self.description = description
        self.ignored = {}
        self._selection, self._modality = selection, modality
        self._column, self._id_column = column, id_column

    def _entries(self) -> Iterator[Entry]:
        for relative, path in self._selection:
            table = _table(path)
            column = self._content_column(table)
            columns = [column] if self._id_column in (None, column) else [column, str(self._id_column)]
            for number, row in table.rows(columns):
                yield self._entry(f"{as_id(relative)}:{number}", row, column, path.parent)

    def _entry(self, source: str, row: Mapping[str, Any] | DamagedRow, column: str, folder: Path) -> Entry:
        if isinstance(row, DamagedRow):
            return Entry(source, source, row.raw, partial(SampleError, f"{source}: {row.reason}"))
        cell = row.get(column)
        read = partial(content_of, cell, self._modality, folder, source)
        name = source
        if self._id_column is not None:
            given = row.get(self._id_column)
            if isinstance(given, int | str) and not isinstance(given, bool) and str(given).strip():
                name = as_id(str(given))
            else:
                reason = f"{source}: expected an id in column {self._id_column!r}, got {given!r:.40}. Fill the cell."
                read = partial(SampleError, reason)
        return Entry(name, source, mark_of(cell), read)

    def _content_column(self, table: Table) -> str:
        names = table.names()
        usual = ("text",) if self._modality == "text" else ("path", self._modality)
        if names is None:
            self._refuse_columns(table.path)
            return usual[0]
        if not names:  # a JSONL file without a whole object
            return self._column or usual[0]
        column = self._column if self._column is not None else next((name for name in usual if name in names), None)
        if column is None:
            raise ConfigError(
                f"{table.path}: expected a column {' or '.join(map(repr, usual))}, got: {', '.join(names)}. Name the column "
                f"that holds the {'texts' if self._modality == 'text' else 'paths'} (column)."
            )
        for wanted in (column, self._id_column):
            if wanted is not None and wanted not in names:
                raise ConfigError(f"{table.path}: {unknown_name('column', wanted, names)}")
            if wanted is not None and names.count(wanted) > 1:
                raise ConfigError(f"{table.path}: two columns are named {wanted!r}. Rename one of them.")
        return column

    def _refuse_columns(self, path: Path) -> None:
        given = [name for name in ("column", "id_column") if getattr(self, f"_{name}") is not None]
        if given:
            raise ConfigError(
                f"{path}: a file of lines has no columns, but {' and '.join(given)} was given. Leave it out."
            )

    def _nothing(self) -> ConfigError:
        return ConfigError(f"{self.description}: empty; expected a line or row for each item.")


def _table(path: Path) -> Table:
    if kind_of(path.name) == LINES:
        return Lines(path)
    ending = ending_of(path.name)
    if ending in (".csv", ".tsv"):
        return CsvTable(path)
    return ParquetTable(path) if ending == ".parquet" else JsonLines(path)

"""CSV and TSV files as lists: one item a row."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from cmcr.data.items.cells import DamagedRow
from cmcr.data.items.reading import damaged, open_utf8, undecoded
from cmcr.errors import ConfigError

_LONGEST_CELL = 1 << 28  # characters; an opened quote that is never closed would otherwise swallow any file


class CsvTable:
    """The rows below the header of a comma-separated file, or of a tab-separated one (`.tsv`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._separator = "\t" if path.suffix.lower() == ".tsv" else ","

    def names(self) -> list[str]:
        """The names in the header.

        Raises:
            ConfigError: there is no header.
            ReadError: the system refuses to read the file, or its first quote is never closed.
        """
        with open_utf8(self.path, newline="") as file:
            return self._header(self._records(file))

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any] | DamagedRow]]:
        """Give each row with its number below the header, from 1; blank lines are no rows."""
        with open_utf8(self.path, newline="") as file:
            records = self._records(file)
            header = self._header(records)
            places = {column: header.index(column) for column in columns}
            for number, record in enumerate(filter(None, records), start=1):
                reason = _fault(record, header, list(places.values()))
                if reason:
                    yield number, DamagedRow(reason, "\0".join(record).encode(errors="surrogateescape"))
                else:
                    yield number, {column: record[place] for column, place in places.items()}

    def _header(self, records: Iterator[list[str]]) -> list[str]:
        header = next(filter(None, records), None)
        if header is None:
            raise ConfigError(
                f"{self.path}: empty; expected a first line that names the columns, then a row for each item."
            )
        return header

    def _records(self, file: TextIO) -> Iterator[list[str]]:
        records = csv.reader(file, delimiter=self._separator, strict=True)
        while True:
            # The limit is csv's own, for the whole program: it is raised while a row is read and then put back.
            before = csv.field_size_limit(_LONGEST_CELL)
            try:
                record = next(records, None)
            except csv.Error as error:
                raise damaged(
                    self.path, "table", f"line {records.line_num}: {error}; are its quotes closed?"
                ) from error
            finally:
                csv.field_size_limit(before)
            if record is None:
                return
            yield record


def _fault(record: list[str], header: list[str], places: list[int]) -> str | None:
    if len(record) != len(header):
        return f"expected {len(header)} cells, got {len(record)}. Quote cells that hold the separator."
    for place in places:
        if reason := undecoded(record[place]):
            return f"column {header[place]!r} is {reason}. Save the table as UTF-8."
    return None

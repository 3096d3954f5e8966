"""Rows of tables as items: lines of text files, CSV, TSV and JSONL files, and Parquet files (the extra `parquet`).

A row that cannot be read does not affect the others: its entry reads as a `SampleError`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cmcr.data.items.files import Selection
from cmcr.data.items.item import Entry, ItemList, as_id
from cmcr.data.paths import NamedBytes, damaged, reading
from cmcr.data.texts import UTF16_MARKS
from cmcr.errors import ConfigError, SampleError, missing_dependency, unknown_name

_LINE = "line"  # the one column of a file of lines
_OBJECTS_LOOKED_AT = 100  # for the columns of JSONL
_PARQUET_ROWS = 64  # read at a time; cells may hold whole pictures
_UNDECODED = re.compile("[\udc80-\udcff]")


@dataclass
class TableItems(ItemList):
    """Each line or row is one item; its id is the file and its number, or a cell.

    Args:
        selection: the files.
        modality: what the items are; texts stand in the rows themselves, others are named by paths from the file's folder.
        description: for messages.
        column: which column holds the texts or paths; `None`: "text" for texts, else "path" or the modality's own name.
        id_column: which column holds the ids; `None`: none does.
    """

    selection: Selection
    modality: str
    description: str
    column: str | None
    id_column: str | None

    def _entries(self) -> Iterator[Entry]:
        for relative, path in self.selection:
            with _OPENED[path.suffix.lower()](path) as (names, rows):
                column = self._content_column(path, names)
                columns = [column] if self.id_column in (None, column) else [column, str(self.id_column)]
                for number, row in rows(columns):
                    yield self._entry(f"{as_id(relative)}:{number}", row, column, path.parent)

    def _entry(self, source: str, row: _Row, column: str, folder: Path) -> Entry:
        if isinstance(row, SampleError):
            return Entry(source, source, str(row).encode(), partial(SampleError, f"{source}: {row}"))
        cell = row.get(column)
        read = partial(_content_of, cell, self.modality, folder, source)
        if self.id_column is None:
            return Entry(source, source, _mark_of(cell), read)
        given = row.get(self.id_column)
        if isinstance(given, int | str) and not isinstance(given, bool) and str(given).strip():
            return Entry(as_id(str(given)), source, _mark_of(cell), read)
        reason = f"{source}: expected an id in column {self.id_column!r}, got {given!r:.40}. Fill the cell."
        return Entry(source, source, _mark_of(cell), partial(SampleError, reason))

    def _content_column(self, path: Path, names: list[str]) -> str:
        if path.suffix.lower() == ".txt":
            if (self.column, self.id_column) != (None, None):
                raise ConfigError(f"{path}: a file of lines has no columns. Leave column and id_column out.")
            return _LINE
        usual = ("text",) if self.modality == "text" else ("path", self.modality)
        if not names:  # a JSONL file without a whole object
            return self.column or usual[0]
        column = self.column if self.column is not None else next((name for name in usual if name in names), None)
        if column is None:
            raise ConfigError(
                f"{path}: expected a column {' or '.join(map(repr, usual))}, got: {', '.join(names)}. Name the column that "
                f"holds the {'texts' if self.modality == 'text' else 'paths'} (column)."
            )
        for wanted in (column, self.id_column):
            if wanted is not None and wanted not in names:
                raise ConfigError(f"{path}: {unknown_name('column', wanted, names)}")
            if wanted is not None and names.count(wanted) > 1:
                raise ConfigError(f"{path}: two columns are named {wanted!r}. Rename one of them.")
        return column

    def _nothing(self) -> ConfigError:
        return ConfigError(f"{self.description}: empty; expected a line or row for each item.")


_Row = Mapping[str, Any] | SampleError
_Table = tuple[list[str], Callable[[Sequence[str]], Iterable[tuple[int, _Row]]]]
"""An open table: the names of its columns; and, for some of them, the number of each row with its cells or its error."""


@contextlib.contextmanager
def _opened_lines(path: Path) -> Iterator[_Table]:
    with _opened_utf8(path) as file:
        yield [_LINE], lambda _: enumerate(({_LINE: line.removesuffix("\n")} for line in file), start=1)


@contextlib.contextmanager
def _opened_csv(path: Path) -> Iterator[_Table]:
    """Rows are numbered from 1 below the header; blank lines are skipped."""
    with _opened_utf8(path, newline="") as file:
        records = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            header = next(filter(None, records), None)
            if header is None:
                raise ConfigError(
                    f"{path}: empty; expected a first line with the names of columns, then a row an item."
                )
            yield header, lambda _: enumerate((_csv_row(header, cells) for cells in filter(None, records)), start=1)
        except csv.Error as error:
            raise damaged(path, "table", f"line {records.line_num}: {error}; are its quotes closed?") from error


def _csv_row(header: list[str], cells: list[str]) -> _Row:
    if len(cells) == len(header):
        return dict(zip(header, cells, strict=True))
    return SampleError(f"expected {len(header)} cells, got {len(cells)}. Quote cells that hold the separator.")


@contextlib.contextmanager
def _opened_jsonl(path: Path) -> Iterator[_Table]:
    """Rows are numbered by their lines; blank lines are skipped. The first objects name the columns."""
    with _opened_utf8(path) as file:
        rows = ((number, _json_row(line)) for number, line in enumerate(file, start=1) if line.strip())
        first = list(itertools.islice(rows, _OBJECTS_LOOKED_AT))
        names = dict.fromkeys(name for _, row in first if isinstance(row, Mapping) for name in row)
        yield list(names), lambda _: itertools.chain(first, rows)


def _json_row(line: str) -> _Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return SampleError(f"not JSON ({error}). Write one object a line.")
    if isinstance(row, dict):
        return row
    return SampleError(f"expected a JSON object, got {type(row).__name__}. Write one object a line.")


@contextlib.contextmanager
def _opened_parquet(path: Path) -> Iterator[_Table]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_dependency("pyarrow", extra="parquet", purpose="Parquet files") from error
    with reading(path), path.open("rb") as file:
        try:
            with parquet.ParquetFile(file) as opened:
                yield opened.schema_arrow.names, partial(_parquet_rows, opened)
        except (pyarrow.ArrowException, OSError) as error:  # the latter for pages that cannot be unpacked
            raise damaged(path, "Parquet file", error) from error


def _parquet_rows(opened: Any, columns: Sequence[str]) -> Iterable[tuple[int, _Row]]:
    batches = opened.iter_batches(batch_size=_PARQUET_ROWS, columns=list(columns), use_threads=False)
    return enumerate((_parquet_row(batch, row) for batch in batches for row in range(batch.num_rows)), start=1)


def _parquet_row(batch: Any, row: int) -> _Row:
    try:
        return {name: batch.column(name)[row].as_py() for name in batch.schema.names}
    except UnicodeDecodeError as error:
        return SampleError(f"not UTF-8: byte {error.start} of a cell. Save it as UTF-8.")


@contextlib.contextmanager
def _opened_utf8(path: Path, newline: str | None = None) -> Iterator[io.TextIOWrapper]:
    """Open a UTF-8 file line by line. Bytes that are not UTF-8 become lone surrogates, found where their cell is read."""
    with reading(path), path.open("rb") as file:
        if file.peek(2).startswith(UTF16_MARKS):
            raise ConfigError(f"{path}: written in UTF-16; only UTF-8 is read. Save it as UTF-8.")
        with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=newline) as text:
            yield text


_OPENED = {
    ".txt": _opened_lines,
    ".csv": _opened_csv,
    ".tsv": _opened_csv,
    ".jsonl": _opened_jsonl,
    ".ndjson": _opened_jsonl,
    ".parquet": _opened_parquet,
}


def _content_of(cell: Any, modality: str, folder: Path, where: str) -> Any:
    """Turn a cell into what a space reads: a text is itself, any other item a path or the bytes of a file.

    Args:
        cell: a string; from Parquet also bytes, or a mapping with `bytes` and `path` as `datasets` writes them.
        modality: what it should be.
        folder: what relative paths begin from.
        where: the row, for messages.

    Returns:
        A string, a path, bytes or `NamedBytes`; a `SampleError` for anything else.
    """
    name = None
    if modality != "text" and isinstance(cell, Mapping):
        name = cell.get("path")
        cell = cell["bytes"] if isinstance(cell.get("bytes"), bytes) else name
    if modality != "text" and isinstance(cell, bytes):
        if modality != "point_cloud":
            return cell
        if isinstance(name, str) and name:
            return NamedBytes(name, cell)
        return SampleError(
            f"{where}: the bytes of a point cloud do not say their format. List paths, or use tar files."
        )
    if not isinstance(cell, str):
        wanted, got = "text" if modality == "text" else "path", "nothing" if cell is None else type(cell).__name__
        return SampleError(
            f"{where}: expected a {wanted}, got {got}. Fill the cell with a string, or leave the row out."
        )
    if found := _UNDECODED.search(cell):
        byte = ord(found[0]) - 0xDC00
        return SampleError(f"{where}: not UTF-8: byte 0x{byte:02X} after {found.start()} characters. Save it as UTF-8.")
    if modality == "text":
        return cell
    if not cell.strip():
        return SampleError(f"{where}: blank; expected a path. Fill it or leave the row out.")
    return cell if "://" in cell else folder / cell


def _mark_of(cell: Any) -> bytes:
    """Give the part of a cell that enters the hash of the list: its text or bytes."""
    if isinstance(cell, Mapping) and isinstance(cell.get("bytes"), bytes):
        cell = cell["bytes"]
    if isinstance(cell, bytes):
        return cell
    text = cell if isinstance(cell, str) else repr(cell)
    return text.encode(errors="surrogatepass")

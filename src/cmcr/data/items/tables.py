"""Rows of tables as items: lines of text files, CSV, TSV and JSONL files, and Parquet files (the extra `parquet`).

A row that cannot be read does not affect the others: its entry reads as a `SampleError`.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cmcr.data.items.files import Entry, SelectedItems, as_id
from cmcr.data.paths import damaged, opened
from cmcr.errors import ConfigError, SampleError, missing_dependency, unknown_name
from cmcr.files import reading

_PARQUET_ROWS = 64  # read at a time; cells may hold whole pictures
_PARQUET_BYTES = 2**30  # of so many rows, were each as large as all of its column in a row group
_LINE = 16 * 2**20  # characters
_UNDECODED = re.compile("[\udc80-\udcff]")

_Row = list[Any] | SampleError
"""The cells of the columns that were chosen, in their order; or why the row cannot be read."""

_Choose = Callable[[list[str]], list[str]]
"""Chooses columns by their names in a table: that of the contents, then that of the ids if there is one, then others."""


@dataclass
class TableItems(SelectedItems):
    """Each line or row is one item; its id is the file and its number, or a cell.

    Texts stand in the rows themselves; items of other modalities are named by paths from the folder of the file. The first
    three arguments are those of all items in files.

    Args:
        column: which column holds the texts or paths; `None`: "text" for texts, else "path" or the modality's own name.
        id_column: which column holds the ids; `None`: none does.
        whole_rows: read all columns, for the `cells` of entries.
    """

    column: str | None
    id_column: str | None
    whole_rows: bool = False

    def _entries(self) -> Iterator[Entry]:
        for relative, path in self.selection:
            rows, read = _READERS[path.suffix.lower()], list[str]()
            for number, row in rows(path, partial(self._columns, path, read)):
                yield self._entry(f"{as_id(relative)}:{number}", row, path.parent, read)

    def _entry(self, source: str, row: _Row, folder: Path, columns: Sequence[str]) -> Entry:
        if isinstance(row, SampleError):
            return Entry(source, source, str(row).encode(), partial(SampleError, f"{source}: {row}"))
        cell, ids = row[0], [] if self.id_column is None else row[1:2]
        cells = dict(zip(columns, row, strict=True)) if self.whole_rows else None
        read = partial(_content_of, cell, self.modality, folder, source)
        if ids and (not isinstance(ids[0], int | str) or isinstance(ids[0], bool) or not str(ids[0]).strip()):
            reason = f"{source}: expected an id in column {self.id_column!r}, got {ids[0]!r:.40}. Fill the cell."
            return Entry(source, source, _mark_of(cell), partial(SampleError, reason))
        return Entry(as_id(str(ids[0])) if ids else source, source, _mark_of(cell), read, cells)

    def _columns(self, path: Path, read: list[str], names: list[str]) -> list[str]:
        usual = ("text", "caption") if self.modality == "text" else ("path", self.modality)
        column = self.column if self.column is not None else next((name for name in usual if name in names), None)
        if column is None:
            raise ConfigError(
                f"{path}: expected a column {' or '.join(map(repr, usual))}, got: {', '.join(names)}. Name the column that "
                f"holds the {'texts' if self.modality == 'text' else 'paths'} (--column, in Python column=)."
            )
        columns = [column] if self.id_column is None else [column, self.id_column]
        for wanted in columns:
            if wanted not in names:
                raise ConfigError(f"{path}: {unknown_name('column', wanted, names)}")
            if names.count(wanted) > 1:
                raise ConfigError(f"{path}: two columns are named {wanted!r}. Rename one of them.")
        if self.whole_rows and path.suffix.lower() != ".txt":
            columns += [name for name in dict.fromkeys(names) if name.strip() and name not in columns]
        read[:] = columns
        return columns

    def _nothing(self) -> ConfigError:
        return ConfigError(f"{self.description}: empty, or no such file; expected a line or row for each item.")


def _line_rows(path: Path, choose: _Choose) -> Iterator[tuple[int, _Row]]:
    """A file of lines is a table of one column, by the usual names."""
    with _opened_utf8(path) as file:
        columns = choose(["text", "path"])
        for number, line in enumerate(_lines(file), start=1):
            yield number, line if isinstance(line, SampleError) else [line.removesuffix("\n")] * len(columns)


def _csv_rows(path: Path, choose: _Choose) -> Iterator[tuple[int, _Row]]:
    """Rows are numbered from 1 below the header; blank lines are skipped."""
    with _opened_utf8(path, newline="") as file:
        records = csv.reader(
            map(_whole, _lines(file)), delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True
        )
        try:
            header = next(filter(None, records), None)
            if header is None:
                raise ConfigError(f"{path}: empty; expected a first line with the names of columns.")
            places = [header.index(name) for name in choose(header)]
            for number, cells in enumerate(filter(None, records), start=1):
                if len(cells) == len(header):
                    yield number, [cells[place] for place in places]
                else:
                    reason = f"expected {len(header)} cells, got {len(cells)}. Quote cells that hold the separator."
                    yield number, SampleError(reason)
        except csv.Error as error:
            raise damaged(path, "table", f"line {records.line_num}: {error}; are its quotes closed?") from error


def _jsonl_rows(path: Path, choose: _Choose) -> Iterator[tuple[int, _Row]]:
    """Rows are numbered by their lines; blank lines are skipped. The first object names the columns."""
    columns = None
    with _opened_utf8(path) as file:
        for number, line in enumerate(_lines(file), start=1):
            if isinstance(line, SampleError):
                yield number, line
                continue
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, SampleError(f"not JSON ({error}). Write one object a line.")
                continue
            if not isinstance(row, dict):
                yield number, SampleError(f"expected a JSON object, got {type(row).__name__}. Write one object a line.")
                continue
            columns = columns or choose(list(row))
            yield number, [row.get(name) for name in columns]


def pyarrow_here() -> Any:
    """Import pyarrow with its Parquet reader; raises MissingDependencyError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise missing_dependency("pyarrow", extra="parquet", purpose="Parquet files") from error
    return pyarrow


def _parquet_rows(path: Path, choose: _Choose) -> Iterator[tuple[int, _Row]]:
    pyarrow = pyarrow_here()
    with reading(path), opened(path) as file:
        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                columns = choose(table.schema_arrow.names)
                groups = [table.metadata.row_group(number).total_byte_size for number in range(table.num_row_groups)]
                size = min(_PARQUET_ROWS, max(1, _PARQUET_BYTES // max([1, *groups])))
                batches = table.iter_batches(batch_size=size, columns=columns, use_threads=False)
                places = ((batch, place) for batch in batches for place in range(batch.num_rows))
                for number, (batch, place) in enumerate(places, start=1):
                    try:
                        yield number, [batch.column(name)[place].as_py() for name in columns]
                    except UnicodeDecodeError as error:
                        yield number, SampleError(f"not UTF-8: byte {error.start} of a cell. Save it as UTF-8.")
        except (pyarrow.ArrowException, OSError) as error:  # the latter for pages that cannot be unpacked
            raise damaged(path, "Parquet file", error) from error


@contextlib.contextmanager
def _opened_utf8(path: Path, newline: str | None = None) -> Iterator[io.TextIOWrapper]:
    """Open a UTF-8 file line by line. Bytes that are not UTF-8 become lone surrogates, found where their cell is read."""
    with (
        reading(path),
        opened(path) as file,
        io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=newline) as text,
    ):
        yield text


def _lines(file: io.TextIOWrapper) -> Iterator[str | SampleError]:
    """Give the lines of a file, each with its end; of one that is too long no more than that is read at a time."""
    while line := file.readline(_LINE):
        if len(line) < _LINE or line.endswith("\n"):
            yield line
            continue
        while line and not line.endswith("\n"):
            line = file.readline(_LINE)
        yield SampleError(f"longer than {_LINE} characters. Cut it, or give it as a file of its own.")


def _whole(line: str | SampleError) -> str:
    if isinstance(line, SampleError):
        raise csv.Error(f"a line is {line}")
    return line


_READERS: dict[str, Callable[[Path, _Choose], Iterable[tuple[int, _Row]]]] = {
    ".txt": _line_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".jsonl": _jsonl_rows,
    ".parquet": _parquet_rows,
}


def _content_of(cell: Any, modality: str, folder: Path, where: str) -> Any:
    """Turn a cell into what a space reads: a text is itself, any other item a path or the bytes of a file.

    Args:
        cell: a string; from Parquet also bytes, or a mapping with `bytes` and `path` as `datasets` writes them.
        modality: what it should be.
        folder: what relative paths begin from.
        where: the row, for messages.

    Returns:
        A string, a path or bytes; a `SampleError` for anything else.
    """
    if modality != "text" and isinstance(cell, dict):
        cell = cell["bytes"] if isinstance(cell.get("bytes"), bytes) else cell.get("path")
    if modality in ("image", "audio") and isinstance(cell, bytes):  # those of a cloud do not say their format
        return cell
    wanted = "text" if modality == "text" else "path"
    if not isinstance(cell, str):
        got = "nothing" if cell is None else type(cell).__name__
        return SampleError(f"{where}: expected a {wanted}, got {got}. Fill the cell or leave the row out.")
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
    if isinstance(cell, dict) and isinstance(cell.get("bytes"), bytes):
        cell = cell["bytes"]
    if isinstance(cell, bytes):
        return cell
    text = cell if isinstance(cell, str) else repr(cell)
    return text.encode(errors="surrogatepass")

"""Reading annotation files, with errors that name the file and the place in it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.data.paths import reading
from cmcr.data.texts import read_lines
from cmcr.errors import FormatError


def json_of(path: Path, kind: type[dict[Any, Any]] | type[list[Any]]) -> Any:
    """Parse a JSON file whose outermost value is an object (`dict`) or an array (`list`).

    Raises:
        FormatError: not JSON, or of another kind.
        ReadError: the system refuses to read it.
    """
    try:
        with reading(path):
            content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not valid JSON ({error}). Fetch it again.") from error
    if not isinstance(content, kind):
        wanted = "an object" if kind is dict else "an array"
        raise FormatError(f"{path}: expected JSON with {wanted} outermost, got {type(content).__name__}.")
    return content


def field(entry: Any, key: str, kind: type[Any] | tuple[type[Any], ...], where: str) -> Any:
    """Take one entry of a JSON object and check its type.

    Raises:
        FormatError: not an object, no such entry, or of another type.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get(key), kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(one.__name__ for one in kinds)
        raise FormatError(f"{where}: expected an object with {key!r} ({expected}), got {entry!r:.100}.")
    return entry[key]


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Give these columns of each row of a CSV file with a header; blank lines are no rows.

    Raises:
        FormatError: a column that is not there, a row of another length, or quotes that are never closed.
        SampleError: not UTF-8.
        ReadError: the system refuses to read it.
    """
    rows = _records(path)
    header = next(rows, [])
    absent = [column for column in columns if column not in header]
    if absent:
        raise FormatError(f"{path}: expected the columns {', '.join(columns)}; {absent[0]!r} is not among {header}.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise FormatError(f"{path} row {number}: expected {len(header)} cells, got {len(row)}.")
        yield {column: row[header.index(column)] for column in columns}


def plain_rows(path: Path, at_least: int) -> list[list[str]]:
    """Read a CSV file without a header; blank lines are no rows.

    Raises:
        FormatError: a row with fewer than `at_least` cells.
        SampleError: not UTF-8.
    """
    rows = [[cell.strip() for cell in row] for row in _records(path)]
    for number, row in enumerate(rows, start=1):
        if len(row) < at_least:
            raise FormatError(f"{path} row {number}: expected at least {at_least} cells, got {row}.")
    return rows


def _records(path: Path) -> Iterator[list[str]]:
    with reading(path):
        lines = read_lines(path, "annotation file")
    try:
        yield from (row for row in csv.reader((f"{line}\n" for line in lines), strict=True) if any(map(str.strip, row)))
    except csv.Error as error:
        raise FormatError(f"{path}: not a CSV file ({error}); are its quotes closed? Fetch it again.") from error


def lines_of(path: Path) -> list[str]:
    """Read the lines of a text file that hold more than white space.

    Raises:
        SampleError: not UTF-8.
        ReadError: the system refuses to read it.
    """
    with reading(path):
        return [line for line in read_lines(path, "annotation file") if line.strip()]


def shares(boxes: Sequence[Any], where: str, *, corner_and_size: bool = False) -> NDArray[np.float64]:
    """Bring boxes to shares of the picture, `(b, 4)`: left, top, right, bottom in [0, 1].

    Boxes that reach beyond the picture are cut at its edge. Those of which nothing is left are dropped: no pixel can be
    found in them.

    Args:
        boxes: each four numbers, shares of width and height.
        where: how messages call them.
        corner_and_size: they are left, top, width, height instead.

    Raises:
        FormatError: not four finite numbers each.
    """
    try:
        given = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) if len(boxes) else np.zeros((0, 4))
    except (ValueError, TypeError) as error:
        raise FormatError(f"{where}: expected boxes of four numbers, got {boxes!r:.100}.") from error
    if len(given) != len(boxes) or not np.isfinite(given).all():
        raise FormatError(f"{where}: expected boxes of four finite numbers, got {boxes!r:.100}.")
    if corner_and_size:
        given = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1)
    cut = np.clip(given, 0.0, 1.0)
    return cut[(cut[:, 2:] > cut[:, :2]).all(axis=1)]

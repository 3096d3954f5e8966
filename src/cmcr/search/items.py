"""The item table: what is known of every item of an index besides its rows, and conditions on it.

One SQLite file that never changes once it is written: a row an item, with one column for each column of the user's tables.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import ConfigError, IntegrityError, unknown_name
from cmcr.files import flush, writing

FIXED = ("number", "id", "modality", "space", "source", "path", "folder", "text", "live")
"""The columns that every item table has; those of the user's tables come after them."""

_CONDITION = re.compile(r"\s*([^=!<>]+?)\s*(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_ORDER = ("<", "<=", ">", ">=")
_LONGEST, _MOST = 1000, 100  # characters of a condition, and conditions: SQLite has limits too


@dataclass(frozen=True)
class Condition:
    """A condition on a column of the item table.

    Attributes:
        column: its name.
        operator: `=`, `!=`, `<`, `<=`, `>` or `>=`.
        value: what the cells are compared with: as a number where the cell is one, else as text. With `=` and `!=`, `*` in
            it stands for any characters (`/` too) and `?` for one.
    """

    column: str
    operator: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read a condition such as `folder=night/*` or `year>=2020`.

        Raises:
            ConfigError: no column, no operator, or longer than 1,000 characters.
        """
        found = _CONDITION.fullmatch(_text(text)) if len(text) <= _LONGEST else None
        if found is None:
            raise ConfigError(f"expected a condition such as 'year>=2020' or 'folder=night/*', got {text!r:.80}.")
        return cls(found[1], found[2], found[3].strip())

    def sql(self, columns: Iterable[str]) -> tuple[str, list[str | float]]:
        """Write it as SQL with bound parameters; raises ConfigError if there is no such column."""
        if self.column not in columns:
            raise unknown_name("column of the item table", self.column, columns)
        name, number = _quoted(self.column), _number(self.value)
        if self.operator in _ORDER:
            compared = (
                f"CASE typeof({name}) WHEN 'text' THEN {name} {self.operator} ? ELSE {name} {self.operator} ? END"
            )
            return compared, [self.value, math.nan if number is None else number]  # nan is bound as NULL
        negated = "NOT " if self.operator == "!=" else ""
        if "*" in self.value or "?" in self.value:
            return f"{negated}ifnull({name} GLOB ?, 0)", [self.value.replace("[", "[[]")]
        values: list[str | float] = [self.value] if number is None else [self.value, number]
        return f"{negated}ifnull({name} IN ({', '.join('?' * len(values))}), 0)", values


@dataclass(frozen=True)
class Item:
    """What is known of an item.

    Attributes:
        number: of the item in the index, until its next update.
        id, modality, space: of the item in its memory.
        source: where it came from, relative to what was embedded.
        path: the file, absolute; None where there is none (a row of a table, a member of a tar file), or it is not known.
        folder: of the file, or of the member of a tar file, relative to what was embedded; "" at the top.
        text: of a text; of other items the cell `text` of their table.
        live: whether it was there when the index was made or updated.
        columns: the cells of the user's table by column; None where it has none.
    """

    number: int
    id: str
    modality: str
    space: str
    source: str
    path: Path | None
    folder: str
    text: str | None
    live: bool
    columns: Mapping[str, Any]


class ItemTable:
    """The item table of an index, read-only; any number of threads may ask.

    Args:
        file: of SQLite, as `writing_items` has written it.
        spans: for each corpus of the index, the numbers of its items.

    Attributes:
        columns: names of all columns, those of the user's tables after `FIXED`.
    """

    def __init__(self, file: Path, spans: Sequence[range]) -> None:
        self._file, self._spans = file, spans
        self.columns = tuple(name for _, name, *_ in self._rows("PRAGMA table_info(items)"))
        if self.columns[: len(FIXED)] != FIXED:
            raise IntegrityError(f"{file}: expected the columns {', '.join(FIXED)}. Run cmcr index again.")

    def mask(self, corpus: int, conditions: Sequence[Condition] = ()) -> NDArray[np.bool_]:
        """Find the items of a corpus that are live and fulfil all conditions: `(N,)`.

        Raises:
            ConfigError: a condition on a column that is not there, or more than 100 conditions.
        """
        if len(conditions) > _MOST:
            raise ConfigError(f"expected at most {_MOST} conditions, got {len(conditions)}.")
        span = self._spans[corpus]
        parts = [condition.sql(self.columns) for condition in conditions]
        where = " AND ".join(["number BETWEEN ? AND ?", "live", *(sql for sql, _ in parts)])
        bound = [span.start, span.stop - 1, *(value for _, values in parts for value in values)]
        allowed = np.zeros(len(span), dtype=bool)
        found = self._rows(f"SELECT number FROM items WHERE {where}", bound)
        allowed[np.fromiter((number for (number,) in found), dtype=np.int64) - span.start] = True
        return allowed

    def items(self, numbers: Sequence[int]) -> list[Item]:
        """Tell what is known of some thousand items at most, in the order given; raises ConfigError for an unknown number."""
        wanted, total = [int(number) for number in numbers], max((span.stop for span in self._spans), default=0)
        for number in wanted:
            if not 0 <= number < total:
                raise ConfigError(f"item {number} is not there: the index has items 0 to {total - 1}.")
        rows = self._rows(f"SELECT * FROM items WHERE number IN ({', '.join('?' * len(wanted))})", wanted)
        found = {row[0]: self._item(row) for row in rows}
        return [found[number] for number in wanted]

    def numbers_of(self, id: str) -> list[int]:
        """Find the live items of an id: their numbers."""
        return [number for (number,) in self._rows("SELECT number FROM items WHERE id = ? AND live", [_text(id)])]

    def _item(self, row: Sequence[Any]) -> Item:
        number, id_, modality, space, source, path, folder, text, live, *cells = row
        columns = dict(zip(self.columns[len(FIXED) :], cells, strict=True))
        return Item(number, id_, modality, space, source, path and Path(path), folder, text, bool(live), columns)

    def _rows(self, sql: str, bound: Sequence[Any] = ()) -> list[Sequence[Any]]:
        """Ask, in a tenth of a millisecond with opening: no connection is kept, which threads could not share."""
        uri = f"{self._file.absolute().as_uri()}?mode=ro&immutable=1"  # the name of the file changes with its content
        try:
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                connection.execute("PRAGMA trusted_schema=OFF")
                return connection.execute(sql, bound).fetchall()
        except sqlite3.DatabaseError as error:
            raise IntegrityError(f"{self._file}: cannot be read ({error}). Run cmcr index again.") from error


class ItemWriter:
    """Writes an item table; from `writing_items`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._columns: dict[str, str] = {}  # of the table, by the user's names
        self._texts: dict[str, bool] = {}  # by column, whether it has had cells that are text but no number
        connection.execute("CREATE TABLE items (number INTEGER PRIMARY KEY, " + ", ".join(FIXED[1:]) + ")")

    def write(self, rows: Iterable[tuple[Sequence[Any], Mapping[str, Any] | None]]) -> None:
        """Write items: the values of `FIXED` in their order, and the cells of the user's table by column."""
        for fixed, cells in rows:
            kept = {name: _kept(cell) for name, cell in (cells or {}).items()}
            given = {self._column(name): cell for name, cell in kept.items() if cell is not None}
            for name, cell in given.items():
                self._texts[name] = self._texts[name] or (isinstance(cell, str) and not _is_plain_number(cell))
            names = ", ".join(map(_quoted, given))
            marks = ", ".join("?" * (len(FIXED) + len(given)))
            sql = f"INSERT INTO items ({', '.join(FIXED)}{', ' + names if names else ''}) VALUES ({marks})"
            self._connection.execute(
                sql, [_text(each) if isinstance(each, str) else each for each in fixed] + [*given.values()]
            )

    def finish(self) -> None:
        """Turn columns of which every cell reads as a number into numbers: those of CSV come as text."""
        for name in (_quoted(name) for name, has_text in self._texts.items() if not has_text):
            self._connection.execute(
                f"UPDATE items SET {name} = CAST(nullif({name}, '') AS NUMERIC) WHERE typeof({name}) = 'text'"
            )

    def _column(self, name: str) -> str:
        """Find the column for a name of the user's; one that is taken gets `_` after it."""
        if name not in self._columns:
            column = _text(name).replace("\0", " ")
            taken = {*FIXED, *(each.lower() for each in self._columns.values())}  # SQLite knows no capitals
            while column.lower() in taken:
                column += "_"
            self._connection.execute(f"ALTER TABLE items ADD COLUMN {_quoted(column)}")
            self._columns[name], self._texts[column] = column, False
        return self._columns[name]


@contextmanager
def writing_items(file: Path) -> Iterator[ItemWriter]:
    """Write an item table to a file that is not there yet; it is whole and flushed when the block is left.

    Raises:
        WriteError: disk full, no permission.
        ConfigError: more columns than SQLite can hold (2,000).
    """
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        with writing(file):
            for setting in ("trusted_schema=OFF", "journal_mode=OFF", "synchronous=OFF"):  # whole, or written again
                connection.execute(f"PRAGMA {setting}")
            connection.execute("BEGIN")
            writer = ItemWriter(connection)
            yield writer
            writer.finish()
            connection.execute("COMMIT")
            connection.close()
            flush(file)
    except sqlite3.OperationalError as error:
        if "columns" in str(error):
            raise ConfigError(f"the tables of items: {error}. Leave columns out.") from error
        with writing(file):
            raise OSError(0, str(error)) from error
    finally:
        connection.close()


def _kept(cell: Any) -> Any:
    """Turn a cell into what SQLite keeps: numbers and text; all else as JSON, without bytes."""
    if cell is None or isinstance(cell, float | bytes):
        return None if isinstance(cell, bytes) else cell
    if isinstance(cell, int):
        return int(cell) if -(2**63) <= cell < 2**63 else str(cell)
    return _text(cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False, default=_plain).strip('"'))


def _plain(value: Any) -> str | None:
    return None if isinstance(value, bytes) else str(value)


def _text(text: str) -> str:
    """Make a text one that SQLite takes: half characters become escapes."""
    return text.encode(errors="backslashreplace").decode()


def _number(text: str) -> float | None:
    """Read a number; None for anything else, "nan" and "inf" too."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


def _is_plain_number(text: str) -> bool:
    """Tell numbers from codes such as 007 and +49, which stay text; an empty cell is no hindrance."""
    return not text or (_number(text) is not None and re.match(r"-?(0|[1-9]\d*)([.eE]|$)", text) is not None)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

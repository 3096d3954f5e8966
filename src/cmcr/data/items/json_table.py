"""JSONL files as lists: one JSON object a line, one item an object."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmcr.data.items.cells import DamagedRow
from cmcr.data.items.reading import open_utf8, undecoded

_LOOKED_AT = 100


class JsonLines:
    """The objects of a JSONL file; the row number is that of the line, and blank lines are no rows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """The names in the first 100 objects: there is no header that says them all."""
        found = (row for _, row in self._objects() if not isinstance(row, DamagedRow))
        return list(dict.fromkeys(name for row in itertools.islice(found, _LOOKED_AT) for name in row))

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any] | DamagedRow]]:
        """Give each object with the number of its line; a line that is no JSON object is a `DamagedRow`."""
        return self._objects()

    def _objects(self) -> Iterator[tuple[int, Mapping[str, Any] | DamagedRow]]:
        with open_utf8(self.path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _parsed(line)


def _parsed(line: str) -> Mapping[str, Any] | DamagedRow:
    raw = line.encode(errors="surrogateescape")
    if reason := undecoded(line):
        return DamagedRow(f"{reason}. Save the file as UTF-8.", raw)
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError) as error:
        return DamagedRow(f"not JSON ({error}). Write one object a line.", raw)
    if not isinstance(parsed, dict):
        return DamagedRow(f"expected a JSON object, got {type(parsed).__name__}. Write one object a line.", raw)
    return parsed

"""A text file as a list: one item a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmcr.data.items.cells import DamagedRow
from cmcr.data.items.reading import open_utf8, undecoded


class Lines:
    """The lines of a UTF-8 file as rows of one cell; blank lines count, ends are those of `cmcr.data.texts.read_lines`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> None:
        """Lines have no columns."""

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any] | DamagedRow]]:
        """Give each line with its number; one that is not UTF-8 is a `DamagedRow`."""
        (column,) = columns
        with open_utf8(self.path) as file:
            for number, line in enumerate(file, start=1):
                text = line.removesuffix("\n")
                reason = undecoded(text)
                raw = text.encode(errors="surrogateescape")
                yield number, DamagedRow(f"{reason}. Save it as UTF-8.", raw) if reason else {column: text}

"""The ids and sources of rows that are given as lists, or numbered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cmcr.errors import DimensionError
from cmcr.memories.numbered_ids import NumberedIds

_AT_ONCE = 65_536


class ListedItems:
    """Ids and sources of a known number of rows.

    Args:
        count: how many rows.
        ids: of the rows; None numbers them from 0.
        sources: of the rows; None takes the ids.
        prefix: stands before the number where rows are numbered.
        description: of the rows, for messages.

    Attributes:
        numbered: whether no ids were given.

    Raises:
        DimensionError: not as many ids or sources as rows.
    """

    def __init__(
        self,
        count: int,
        ids: Sequence[str] | None = None,
        sources: Sequence[str] | None = None,
        *,
        prefix: str = "",
        description: str = "the rows",
    ) -> None:
        self.count = count
        self.numbered = ids is None
        self._prefix = prefix
        self._ids = _list("ids", ids, count, description)
        self._sources = _list("sources", sources, count, description)

    def ids(self) -> Iterator[Sequence[str]]:
        """Give the ids, some at a time."""
        for start in range(0, self.count, _AT_ONCE):
            yield self._ids_of(start, min(start + _AT_ONCE, self.count))

    def part(self, start: int, stop: int) -> tuple[Sequence[str], Sequence[str]]:
        """Give the ids and the sources of some rows."""
        ids = self._ids_of(start, min(stop, self.count))
        return ids, ids if self._sources is None else self._sources[start:stop]

    def _ids_of(self, start: int, stop: int) -> Sequence[str]:
        if self._ids is None:
            return NumberedIds(start, stop, self._prefix)
        return self._ids[start:stop]


def _list(name: str, given: Sequence[str] | None, count: int, description: str) -> list[str] | None:
    if given is None:
        return None
    strings: list[Any] = given.tolist() if isinstance(given, np.ndarray) else list(given)
    if len(strings) != count:
        raise DimensionError(f"{description}: expected one of the {name} for each of {count} rows, got {len(strings)}.")
    if set(map(type, strings)) == {str}:
        return strings
    return [str(one) if isinstance(one, str) else one for one in strings]  # numpy has a string of its own

"""Ids and sources as pairs, without a tuple for each: a million of them keep the garbage collector busy for long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


class ItemPairs(Sequence[tuple[str, str]]):
    """Ids and sources as a sequence of pairs.

    Args:
        ids: of items.
        sources: of the same items; the very same sequence where the sources are the ids.
    """

    def __init__(self, ids: Sequence[str], sources: Sequence[str]) -> None:
        self.ids = ids
        self._sources = sources

    @property
    def same(self) -> bool:
        """Whether the sources are known to be the ids."""
        return self._sources is self.ids

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return zip(self.ids, self._sources, strict=True)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return list(zip(self.ids[place], self._sources[place], strict=True))
        return self.ids[place], self._sources[place]

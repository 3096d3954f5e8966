"""One walk over a list of items before any work: how many there are, a hash of each shard, no id twice."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from cmcr.arrays import check_count
from cmcr.errors import ConfigError

Identity = tuple[str, bytes]
"""The id of an item, and what tells its content from another cheaply (empty where nothing does)."""


@dataclass(frozen=True)
class Survey:
    """What the walk found.

    Attributes:
        count: how many items there are.
        digests: by shard, the hash of its items. It changes with their ids, their order and what tells their contents apart.
    """

    count: int
    digests: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Hash of the whole list."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()


def digest_of(items: Sequence[Identity]) -> str:
    """Hash the items of a shard."""
    return hashlib.sha256(ascii(list(items)).encode()).hexdigest()


def survey(walk: Callable[[], Iterable[Identity]], shard_items: int, description: str) -> Survey:
    """Survey a list of items, which is walked again only to name an id that occurs twice; eight bytes an item are held.

    Raises:
        ConfigError: `shard_items` below 1, an id that is not a string, or one that occurs twice.
    """
    check_count("shard_items", shard_items)
    hashes, digests = array("q"), []
    for part in _parts(walk(), shard_items):
        for position, (id_, _) in enumerate(part, start=len(hashes)):
            if not isinstance(id_, str):
                raise ConfigError(
                    f"{description}: expected strings as ids, got {id_!r} ({type(id_).__name__}) for item {position}. "
                    "Convert the ids with str()."
                )
        hashes.extend(hash(id_) for id_, _ in part)
        digests.append(digest_of(part))
    ordered = np.sort(np.frombuffer(hashes, dtype=np.int64))
    suspects = frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if suspects:  # two ids of one hash are no fault
        _refuse_repeated(walk(), suspects, description)
    return Survey(len(hashes), tuple(digests))


def _parts(items: Iterable[Identity], size: int) -> Iterator[list[Identity]]:
    walk = iter(items)
    while part := list(islice(walk, size)):
        yield part


def _refuse_repeated(items: Iterable[Identity], suspects: frozenset[int], description: str) -> None:
    seen: dict[str, int] = {}
    for position, (id_, _) in enumerate(items):
        if hash(id_) not in suspects:
            continue
        if id_ in seen:
            raise ConfigError(
                f"{description}: the id {id_!r} occurs twice, for items {seen[id_]} and {position}. Each item needs an id of "
                "its own; choose another id column, or leave it out to number the rows."
            )
        seen[id_] = position

"""The survey of a list of items: how many there are, a hash that changes when the list does, no id twice."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import ConfigError

if TYPE_CHECKING:
    from cmcr.data.items.item import Entry


@dataclass(frozen=True)
class Survey:
    """What one pass over a list of items found.

    Args:
        count: how many items there are.
        digest: sha256, in hexadecimal, over the ids and what tells contents cheaply: the sizes of members of archives, the
            text of lines and cells. The same on every machine; dates and absolute paths are not in it.
    """

    count: int
    digest: str


def survey_of(walk: Callable[[], Iterator[Entry]], description: str) -> Survey:
    """Survey the entries that `walk` gives; see `ItemList.survey`.

    Raises:
        ConfigError: an id occurs twice.
    """
    whole = hashlib.sha256()
    seen = array("Q")
    for entry in walk():
        identity = entry.id.encode()
        for part in (identity, entry.mark):
            whole.update(len(part).to_bytes(8, "big"))  # without lengths, ab + c and a + bc would be the same
            whole.update(part)
        seen.append(_hash_of(identity))
    suspects = _repeated(np.frombuffer(seen, dtype=np.uint64))
    if suspects.size:
        _refuse_twice(walk, suspects, description)
    return Survey(len(seen), whole.hexdigest())


def _hash_of(identity: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(identity, digest_size=8).digest(), "big")


def _repeated(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    hashes.sort()  # in place: a copy would double what is held
    return hashes[1:][hashes[1:] == hashes[:-1]]


def _refuse_twice(walk: Callable[[], Iterator[Entry]], suspects: NDArray[np.uint64], description: str) -> None:
    """Raise for the first id that occurs twice; two ids of one hash are no fault."""
    sources: dict[str, str] = {}
    for entry in walk():
        hashed = np.uint64(_hash_of(entry.id.encode()))
        place = int(np.searchsorted(suspects, hashed))
        if place == suspects.size or suspects[place] != hashed:
            continue
        if entry.id in sources:
            raise ConfigError(
                f"{description}: the id {entry.id!r} occurs twice, at {sources[entry.id]} and at {entry.source}. Each item "
                "needs an id of its own; choose another id_column, or leave it out to number the rows."
            )
        sources[entry.id] = entry.source

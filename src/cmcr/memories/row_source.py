"""Rows that exist already, with their items' ids: what is written into a memory without an encoder."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cmcr.errors import ConfigError, TooFewRowsError
from cmcr.memories.numbered_ids import NumberedIds


@dataclass(frozen=True)
class Block:
    """Consecutive items of a source.

    Attributes:
        ids: of the items.
        sources: of the items.
        rows: `(n, D)` floating point: one for each item that is not in `missing`, in their order.
        missing: why an item has no row, by its place in the block.
    """

    ids: Sequence[str]
    sources: Sequence[str]
    rows: Tensor
    missing: Mapping[int, str] = field(default_factory=dict)


class RowSource(ABC):
    """A list of items and their rows, which never lies in memory as a whole.

    Attributes:
        description: what it is, for messages.
        width: width D.
        mark: what tells its rows from others cheaply, where anything does.
        numbered: whether its ids are numbers that count up from the first row to the last, so that none occurs twice.
    """

    description: str
    width: int
    mark: bytes = b""
    numbered: bool = False

    @abstractmethod
    def ids(self) -> Iterator[Sequence[str]]:
        """Give the ids of all items in their order, some at a time, without reading rows."""

    @abstractmethod
    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Give all items from position `start` on, preferably `size` at a time."""


@dataclass(frozen=True)
class RowSurvey:
    """What one pass over the ids of a source found.

    Attributes:
        count: how many items.
        digest: sha256, in hexadecimal, over the number of items, the width, the ids and the source's mark.
    """

    count: int
    digest: str


def survey_rows(source: RowSource) -> RowSurvey:
    """Count the items of a source, hash their ids and refuse ids that occur twice; eight bytes an item are held.

    Numbered ids cannot occur twice, and nothing is held of them.

    Raises:
        TooFewRowsError: no items.
        ConfigError: an id that is no string, or one that occurs twice.
    """
    texts, lengths, hashes, count = hashlib.sha256(), hashlib.sha256(), array("q"), 0
    for ids in source.ids():
        _check_strings(ids, count, source.description)
        text, length_of_each = _text_of(ids)
        texts.update(text)
        lengths.update(length_of_each.astype("<i8", copy=False).tobytes())
        count += len(ids)
        if not source.numbered:
            hashes.extend(map(hash, ids))
    if not count:
        raise TooFewRowsError(f"{source.description}: expected at least one row, got none.")
    suspects = repeated(np.frombuffer(hashes, dtype=np.int64))
    if suspects:
        _refuse_twice(source, suspects)
    head = f"{count} {source.width}".encode()
    whole = hashlib.sha256(b"\n".join([head, texts.digest(), lengths.digest(), source.mark]))
    return RowSurvey(count, whole.hexdigest())


def _text_of(ids: Sequence[str]) -> tuple[bytes, NDArray[np.int64]]:
    """Join ids, and say how long each is, so that ab + c and a + bc differ."""
    if isinstance(ids, NumberedIds):
        return ids.joined(), ids.lengths()
    return "".join(ids).encode("utf-8", "surrogatepass"), np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))


def repeated(hashes: NDArray[np.int64]) -> frozenset[int]:
    """Find the hashes that occur more than once."""
    hashes = np.sort(hashes)
    return frozenset(np.unique(hashes[1:][hashes[1:] == hashes[:-1]]).tolist())


def _check_strings(ids: Sequence[str], before: int, description: str) -> None:
    if isinstance(ids, NumberedIds) or set(map(type, ids)) <= {str}:
        return
    place, wrong = next((place, id_) for place, id_ in enumerate(ids) if type(id_) is not str)
    raise ConfigError(
        f"{description}: expected strings as ids, got {wrong!r} ({type(wrong).__name__}) for row {before + place}. "
        "Convert the ids with str()."
    )


def _refuse_twice(source: RowSource, suspects: frozenset[int]) -> None:
    """Raise for the first id that occurs twice; two ids of one hash are no fault."""
    seen: dict[str, int] = {}
    row = 0
    for ids in source.ids():
        for id_ in ids:
            if hash(id_) in suspects:
                if id_ in seen:
                    raise ConfigError(
                        f"{source.description}: the id {id_!r} occurs twice, in rows {seen[id_]} and {row}. Each row needs "
                        "an id of its own."
                    )
                seen[id_] = row
            row += 1

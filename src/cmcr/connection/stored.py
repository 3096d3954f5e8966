"""Memories on disk, as they are connected: which belong together, and which items two of them share."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcr.arrays import HashedRows, StoredRows, normalized
from cmcr.connection.residence import Empty
from cmcr.errors import ConfigError, DimensionError, NonFiniteError, TooFewRowsError

Places = Tensor | None
"""Positions of rows `(n,)`, or None for all of them in their order."""


@runtime_checkable
class StoredMemory(HashedRows, Protocol):
    """The embeddings of one modality in one space, on disk (`cmcr.Memory` is one)."""

    @property
    def space(self) -> str:
        """The space's name."""
        ...

    @property
    def modality(self) -> str:
        """What was embedded."""
        ...

    @property
    def fingerprint(self) -> str | None:
        """What identifies the encoders, if known."""
        ...

    @property
    def folders(self) -> Sequence[Path]:
        """Where it is."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """The id of each row's item."""
        ...

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        """Read consecutive rows."""
        ...


@dataclass(frozen=True)
class StoredSpace:
    """The memories of one space, by modality."""

    space: str
    rows: Mapping[str, StoredMemory]
    fingerprint: str | None
    encoder: None = None


def spaces_of(memories: Sequence[StoredMemory]) -> tuple[StoredSpace, StoredSpace]:
    """Sort memories by their spaces.

    Raises:
        ConfigError: not two spaces, a modality twice, or memories of one space from different encoders.
        DimensionError: memories of one space are not equally wide.
    """
    names = list(dict.fromkeys(memory.space for memory in memories))
    if len(names) != 2:
        raise ConfigError(
            f"expected memories of two spaces, got {len(names)}: {', '.join(map(repr, names))}. Give four: the shared "
            "modality and one more, of either space."
        )
    left, right = (_space_of([memory for memory in memories if memory.space == name]) for name in names)
    return left, right


def _space_of(memories: Sequence[StoredMemory]) -> StoredSpace:
    first = memories[0]
    for memory in memories:
        if memory.fingerprint != first.fingerprint:
            raise ConfigError(
                f"space {first.space!r}: its {first.modality} memory is of the encoders {first.fingerprint}, its "
                f"{memory.modality} memory of {memory.fingerprint}: embed both with the same model."
            )
    for memory in memories:
        if memory.shape[1] != first.shape[1]:
            raise DimensionError(
                f"{_named(memory)} is {memory.shape[1]} wide, {_named(first)} {first.shape[1]}: both must be embeddings of one "
                "space. Embed both with the same model."
            )
    by_modality = {memory.modality: memory for memory in memories}
    if len(by_modality) < len(memories):
        raise ConfigError(
            f"space {first.space!r}: a modality was given twice. Make one of several memories: cmcr.Memory(a, b)."
        )
    return StoredSpace(first.space, by_modality, first.fingerprint)


def shared_places(
    left: Tensor | StoredRows, right: Tensor | StoredRows, names: tuple[str, str]
) -> tuple[Places, Places]:
    """Tell which rows of either space's overlap are the same items.

    Two memories on disk are matched by the ids of their items, for either may lack what it could not embed; anything
    else is taken row by row.

    Args:
        left: of one space.
        right: of the other.
        names: of the spaces, for messages.

    Returns:
        for either, `(n,)` positions of rows, or None for all in their order.

    Raises:
        TooFewRowsError: fewer than two items are in both.
        ConfigError: an id occurs twice in one space, so that nobody can tell which items belong together.
    """
    if not (isinstance(left, StoredMemory) and isinstance(right, StoredMemory)):
        return None, None
    left_ids, right_ids = _unique(left.ids, names[0]), _unique(right.ids, names[1])
    if left_ids == right_ids:
        return None, None
    place = {id_: row for row, id_ in enumerate(right_ids)}
    found = torch.tensor([place.get(id_, -1) for id_ in left_ids])
    chosen = (found >= 0).nonzero()[:, 0]
    if len(chosen) < 2:
        raise TooFewRowsError(
            f"the overlap: {names[0]!r} has {len(left_ids)} items and {names[1]!r} {len(right_ids)}, and {len(chosen)} ids "
            f"are in both (such as {left_ids[0]!r} and {right_ids[0]!r}). Embed the same list of items with both encoders."
        )
    dropped = len(left_ids) + len(right_ids) - 2 * len(chosen)
    if dropped:
        warnings.warn(
            f"the overlap: {len(chosen)} items are in both {names[0]!r} and {names[1]!r}; {dropped} that only one of them "
            "has are left out.",
            stacklevel=3,  # to the caller of `connect`
        )
    return chosen, found[chosen]


def rows_at(given: Tensor | StoredRows, places: Places, empty: Empty) -> Tensor:
    """Bring rows to where they are trained on; rows on disk are read block by block, once.

    Args:
        given: `(N, D)` unit rows.
        places: `(n,)` which of them, or None for all.
        empty: makes the room for rows on disk.

    Returns:
        `(n, D)` float32 unit rows.

    Raises:
        NonFiniteError: NaN or infinity in rows on disk.
    """
    if isinstance(given, Tensor):
        return given if places is None else given[places]
    count = len(given) if places is None else len(places)
    rows = empty(count, given.shape[1])
    wanted = torch.full((len(given),), -1)
    wanted[slice(None) if places is None else places] = torch.arange(count)
    start = 0
    for block in given.blocks():
        _check_block(given, block, start)
        into = wanted[start : start + len(block)]
        start += len(block)
        kept = into >= 0
        # Rounding on disk has moved the length of rows a little.
        rows.index_copy_(0, into[kept].to(rows.device), normalized(torch.from_numpy(block))[kept].to(rows.device))
    return rows


def overlap_rows(
    left: Tensor | StoredRows, right: Tensor | StoredRows, names: tuple[str, str]
) -> tuple[Tensor, Tensor]:
    """Read the overlap of two spaces into RAM, row i the same item in both (see `shared_places` and `rows_at`)."""
    places = shared_places(left, right, names)
    return rows_at(left, places[0], _in_ram), rows_at(right, places[1], _in_ram)


def check_stored(rows: StoredRows) -> None:
    """Read rows on disk and make sure that no value is NaN or infinite.

    Raises:
        NonFiniteError: with the first row that holds one, and where it is.
    """
    start = 0
    for block in rows.blocks():
        _check_block(rows, block, start)
        start += len(block)


def _check_block(rows: StoredRows, block: NDArray[np.float32], start: int) -> None:
    values = torch.from_numpy(block)
    # One look at the ends of the range, which NaN spreads to, is ten times as fast as a look at each value.
    if not len(block) or torch.isfinite(torch.stack(torch.aminmax(values))).all():
        return
    if isinstance(rows, RowsBetween):
        start, rows = start + rows.part.start, rows.memory
    first = int((~torch.isfinite(values).all(dim=1)).nonzero()[0])
    raise NonFiniteError(
        f"{_named(rows)}: NaN or infinity, first in row {start + first}. Look for damage with `cmcr verify`; if there is none, "
        "they were written so: embed those items again."
    )


def _named(rows: StoredRows) -> str:
    if isinstance(rows, StoredMemory):
        return f"{rows.modality} of space {rows.space!r} ({', '.join(map(str, rows.folders))})"
    return "rows on disk"


def _in_ram(rows: int, width: int) -> Tensor:
    return torch.empty(rows, width, dtype=torch.float32)


@dataclass(frozen=True)
class RowsBetween:
    """Consecutive rows of a memory on disk, as rows of their own."""

    memory: StoredMemory
    part: slice

    @property
    def shape(self) -> tuple[int, int]:
        """`(N, D)`."""
        return self.part.stop - self.part.start, self.memory.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self, rows: int = 4096) -> Iterator[NDArray[np.float32]]:
        """Read them in their order, at most `rows` at a time."""
        for start in range(self.part.start, self.part.stop, rows):
            yield self.memory[start : min(start + rows, self.part.stop)]

    def digest(self) -> str:
        """Hash which rows of which memory they are."""
        return hashlib.sha256(f"{self.part.start} {self.part.stop} {self.memory.digest()}".encode()).hexdigest()


def _unique(ids: Sequence[str], name: str) -> list[str]:
    seen = set[str]()
    for id_ in ids:
        if id_ in seen:
            raise ConfigError(
                f"the overlap of {name!r}: the id {id_!r} occurs twice, so items cannot be matched. Were several lists of one "
                "name put together? Merge them with --deduplicate, or embed them with an id column."
            )
        seen.add(id_)
    return list(ids)

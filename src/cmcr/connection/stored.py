"""Memories on disk, as they are connected: which belong together, and which items two of them share."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cmcr.embeddings import StoredRows, all_rows
from cmcr.errors import ConfigError, TooFewRowsError


@runtime_checkable
class StoredMemory(StoredRows, Protocol):
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
    def ids(self) -> Sequence[str]:
        """The id of each row's item."""
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
    by_modality = {memory.modality: memory for memory in memories}
    if len(by_modality) < len(memories):
        raise ConfigError(
            f"space {first.space!r}: a modality was given twice. Make one of several memories: cmcr.Memory(a, b)."
        )
    return StoredSpace(first.space, by_modality, first.fingerprint)


def overlap_rows(
    left: Tensor | StoredRows, right: Tensor | StoredRows, names: tuple[str, str]
) -> tuple[Tensor, Tensor]:
    """Read the overlap of two spaces into RAM, row i the same item in both.

    Two memories on disk are matched by the ids of their items, for either may lack what it could not embed; anything
    else is taken row by row.

    Args:
        left: of one space.
        right: of the other.
        names: of the spaces, for messages.

    Returns:
        unit rows `(n, D)` of either.

    Raises:
        TooFewRowsError: fewer than two items are in both.
        ConfigError: an id occurs twice, so that it does not say which items belong together.
    """
    rows = tuple(given if isinstance(given, Tensor) else all_rows(given) for given in (left, right))
    if not (isinstance(left, StoredMemory) and isinstance(right, StoredMemory)):
        return rows[0], rows[1]
    left_ids, right_ids = list(left.ids), list(right.ids)
    if left_ids == right_ids:
        return rows[0], rows[1]
    for ids, name in ((left_ids, names[0]), (right_ids, names[1])):
        _check_unique(ids, name)
    place = {id_: row for row, id_ in enumerate(right_ids)}
    pairs = [(row, place[id_]) for row, id_ in enumerate(left_ids) if id_ in place]
    if len(pairs) < 2:
        raise TooFewRowsError(
            f"the overlap: {names[0]!r} has {len(left_ids)} items and {names[1]!r} {len(right_ids)}, and {len(pairs)} ids are "
            f"in both (such as {left_ids[0]!r} and {right_ids[0]!r}). Embed the same list of items with both encoders."
        )
    dropped = len(left_ids) + len(right_ids) - 2 * len(pairs)
    if dropped:
        warnings.warn(
            f"the overlap: {len(pairs)} items are in both {names[0]!r} and {names[1]!r}; {dropped} that only one of them has "
            "are left out.",
            stacklevel=3,  # to the caller of `connect`
        )
    chosen = torch.tensor(pairs)
    return rows[0][chosen[:, 0]], rows[1][chosen[:, 1]]


def _check_unique(ids: Sequence[str], space: str) -> None:
    """Refuse ids by which items cannot be matched."""
    if len(set(ids)) == len(ids):
        return
    seen: set[str] = set()
    twice = next(id_ for id_ in ids if id_ in seen or seen.add(id_))  # type: ignore[func-returns-value]
    raise ConfigError(
        f"the overlap: in {space!r} the id {twice!r} occurs twice, so it does not say which items belong together. Give each "
        "memory once, and lists of items whose ids differ."
    )

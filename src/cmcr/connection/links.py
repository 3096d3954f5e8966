"""Between which spaces there is a link: which of those given share a modality, and whether that joins all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol, runtime_checkable

import torch

from cmcr.arrays import StoredRows, all_rows
from cmcr.connection.connection import Encoder
from cmcr.connection.methods.fitting import Parent
from cmcr.engine.batches import Rows
from cmcr.errors import ConfigError, DimensionError, TooFewRowsError, unknown_name
from cmcr.progress import Progress

Overlap = str | Mapping[tuple[str, str], str] | None
"""The shared modality; or of several spaces that of each pair to be linked, as ``{("clip", "clap"): "text"}``."""


@runtime_checkable
class SpaceMemories(Protocol):
    """The embeddings of one space, by modality (`cmcr.Memories` is one)."""

    @property
    def space(self) -> str:
        """The space's name."""

    @property
    def rows(self) -> Mapping[str, Rows]:
        """Unit rows `(n, D)` by modality, all of one width, in RAM or on disk."""

    @property
    def fingerprint(self) -> str | None:
        """What identifies the encoders, if known."""

    @property
    def encoder(self) -> Encoder | None:
        """The encoders, if attached."""


@dataclass(frozen=True)
class Link:
    """Two spaces and the modality that they share.

    Attributes:
        left: the space that was given first.
        right: the other one.
        overlap: the shared modality.
    """

    left: SpaceMemories
    right: SpaceMemories
    overlap: str

    @property
    def names(self) -> tuple[str, str]:
        """The names of the spaces."""
        return self.left.space, self.right.space

    @property
    def parents(self) -> tuple[Parent, Parent]:
        """The rows of the left and the right space."""
        return self.parent(self.left), self.parent(self.right)

    def parent(self, space: SpaceMemories) -> Parent:
        """Give the rows of one of the spaces; several modalities besides the overlap are taken together, in RAM."""
        others = [rows for modality, rows in space.rows.items() if modality != self.overlap]
        if not others:
            raise ConfigError(
                f"space {space.space!r}: expected a modality besides the overlap {self.overlap!r}, got none. Pass the "
                "overlap and the modality to be connected."
            )
        one = others[0] if len(others) == 1 else torch.cat([_in_ram(rows) for rows in others])
        return Parent(space.rows[self.overlap], one)


def spaces_of(memories: Sequence[Any], overlap: Overlap = None) -> Sequence[SpaceMemories]:
    """Find the spaces in what was given; raise a `ConfigError` where there are not two or more."""
    if memories and all(isinstance(given, StoredRows) for given in memories):
        grouped: Sequence[SpaceMemories] = memories[0].by_space(memories, overlap)
        return grouped
    if len(memories) < 2 or not all(isinstance(given, SpaceMemories) for given in memories):
        found = ", ".join(type(given).__name__ for given in memories) or "nothing"
        raise ConfigError(
            f"expected two or more cmcr.Memories, or four or more cmcr.Memory on disk, got {found}. Wrap the arrays of each "
            'space, such as cmcr.Memories("clip", text=texts, image=pictures).'
        )
    return memories


def links_of(spaces: Sequence[SpaceMemories], overlap: Overlap = None) -> list[Link]:
    """Find the links between spaces: those that were named, else every pair that shares a modality.

    Raises:
        ConfigError: equal names; no or several shared modalities; spaces that no chain of links joins.
        DimensionError, TooFewRowsError: the overlap of a link differs in its number of rows, or has fewer than two.
    """
    names = [space.space for space in spaces]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{names.count(name)} spaces are called {name!r}: give them different names.")
    named = _named(overlap, names)
    links = []
    for left, right in combinations(spaces, 2):
        wanted = overlap if named is None else named.get(frozenset((left.space, right.space)))
        assert wanted is None or isinstance(wanted, str)
        if len(spaces) > 2 and named is None and not any(m in right.rows for m in left.rows if wanted in (None, m)):
            continue  # through the spaces between, if there are any
        if named is None or wanted is not None:
            links.append(Link(left, right, overlap_of(left, right, wanted)))
    joined = {name for name in names if path_of(links, names[0], name)}
    if left_out := [space for space in spaces if space.space not in joined]:
        has = "; ".join(f"{space.space!r} has {', '.join(space.rows)}" for space in spaces)
        raise ConfigError(
            f"no chain of overlaps joins {left_out[0].space!r} to {names[0]!r}: {has}. Embed a shared modality with both, or "
            "add a space between."
        )
    for link in links:
        _check_rows(link, len(spaces))
    return links


def check_whole(spaces: Sequence[SpaceMemories], report: Progress) -> None:
    """Hash the files of memories on disk, as fast as they are read; raises IntegrityError where one is damaged."""
    stored = [rows for space in spaces for rows in space.rows.values() if hasattr(rows, "verify")]
    for number, rows in enumerate(stored, start=1):
        rows.verify()
        report("checking the memories", number / len(stored))


def path_of(links: Sequence[Link], start: str, end: str) -> list[str]:
    """Find a shortest path over links: the names of the spaces on it, both ends included; empty if there is none."""
    paths = {start: [start]}
    todo = [start]
    for name in todo:  # breadth first
        for link in links:
            if name in link.names:
                (other,) = set(link.names) - {name}
                if other not in paths:
                    paths[other] = [*paths[name], other]
                    todo.append(other)
    return paths.get(end, [])


def overlap_of(left: SpaceMemories, right: SpaceMemories, overlap: str | None) -> str:
    """Find the shared modality of two spaces, or check the one that was asked for."""
    shared = [modality for modality in left.rows if modality in right.rows]
    if not shared:
        raise ConfigError(
            f"{left.space!r} has {', '.join(left.rows)} and {right.space!r} has {', '.join(right.rows)}: they share no "
            "modality. Embed one modality with both."
        )
    if overlap is None:
        if len(shared) > 1:
            raise ConfigError(f"{left.space!r} and {right.space!r} share {', '.join(shared)}: choose one by overlap=.")
        return shared[0]
    if overlap not in shared:
        raise unknown_name("overlap modality", overlap, shared)
    return overlap


def _named(overlap: Overlap, names: Sequence[str]) -> dict[frozenset[str], str] | None:
    """Check the links that were named."""
    if overlap is None or isinstance(overlap, str):
        return None
    found: dict[frozenset[str], str] = {}
    for pair, modality in overlap.items():
        if isinstance(pair, str) or len(set(pair)) != 2:
            raise ConfigError(f'overlap: expected pairs of spaces such as ("{names[0]}", "{names[1]}"), got {pair!r}.')
        for name in pair:
            if name not in names:
                raise unknown_name("space of the overlap", name, names)
        found[frozenset(pair)] = modality
    return found


def _check_rows(link: Link, spaces: int) -> None:
    left, right = (len(space.rows[link.overlap]) for space in (link.left, link.right))
    if left != right:
        raise DimensionError(
            f"the overlap {link.overlap!r} has {left} rows in {link.left.space!r} and {right} in {link.right.space!r}: row i "
            "must be the same item in both. Embed the same list of items with both encoders"
            + (", or name by overlap= the pairs that have the same items." if spaces > 2 else ".")
        )
    if left < 2:
        raise TooFewRowsError(f"the overlap {link.overlap!r}: at least 2 rows are needed to contrast, got {left}.")
    for space in (link.left, link.right):
        others = {modality: len(rows) for modality, rows in space.rows.items() if modality != link.overlap}
        if sum(others.values()) == 1:
            raise TooFewRowsError(
                f"{next(iter(others))} of {space.space!r}: 1 row says nothing of the modality. Give a few thousand, which need "
                "not belong to anything."
            )


def _in_ram(rows: Rows) -> torch.Tensor:
    return rows if isinstance(rows, torch.Tensor) else all_rows(rows)

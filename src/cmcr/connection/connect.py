"""Connect two spaces: enhancement, then training. This file is the paper's figure 2, read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from cmcr.connection.connection import ConnectedSpace, Connection, Encoder
from cmcr.connection.enhancement import semantic_consistency
from cmcr.connection.settings import Settings, check_seed, settings_of
from cmcr.connection.stored import StoredMemory, overlap_rows, spaces_of
from cmcr.connection.training import Side, train
from cmcr.embeddings import StoredRows, choose_device
from cmcr.errors import ConfigError, DimensionError, TooFewRowsError, unknown_name

Progress = Callable[[str, float], None]
"""Called with the stage's name and the share of it done, in (0, 1]."""

Counterparts = MutableMapping[tuple[str, float, bool], Tensor]
"""Semantically consistent rows, by space, temperature and whether they were made unit rows."""


@runtime_checkable
class SpaceMemories(Protocol):
    """The embeddings of one space, by modality (`cmcr.Memories` is one)."""

    @property
    def space(self) -> str:
        """The space's name."""
        ...

    @property
    def rows(self) -> Mapping[str, Tensor | StoredRows]:
        """Unit rows `(n, D)` by modality, all of one width, in RAM or on disk."""
        ...

    @property
    def fingerprint(self) -> str | None:
        """What identifies the encoders, if known."""
        ...

    @property
    def encoder(self) -> Encoder | None:
        """The encoders, if attached."""
        ...


def connect(
    *memories: SpaceMemories | StoredMemory,
    overlap: str | None = None,
    method: str = "c-mcr",
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    counterparts: Counterparts | None = None,
    **settings: Any,
) -> Connection:
    """Connect two contrastive spaces through a modality they share, without any pair of their other modalities.

    Args:
        *memories: two `cmcr.Memories`, one a space: the overlap and exactly one other modality each. Row i of the overlap
            must be the same item in both; the rows of the other modalities need not belong to anything. Or four
            `cmcr.Memory` on disk, in any order, which know their space and modality; their overlap is matched by ids, and
            only the overlap is read into RAM.
        overlap: the shared modality; may be left out if there is only one.
        method: `"c-mcr"` or `"c-mcr-published"` (see `cmcr.connection.settings`).
        seed: decides initial weights, order and noise; the same seed gives the same connection bit for bit on one
            machine.
        device: `"auto"` takes a GPU if there is one.
        progress: called with (stage, share done); the stages are "semantic consistency" and "training".
        counterparts: filled with the semantically consistent rows, and used where it holds them: give the same mapping to
            several calls with the same memories, which then compute them once.
        **settings: changes to the method's settings, such as `epochs=10` (see `cmcr.connection.settings.Settings`).

    Returns:
        The connection. Encoders of the memories, if any, stay attached to it.

    Raises:
        ConfigError: an unknown method, modality or setting; no or several shared modalities; equal names.
        DimensionError: different numbers of overlap rows.
        TooFewRowsError: fewer than two overlap rows.
        TrainingError: the loss diverged.
    """
    chosen = settings_of(method, **settings)
    seed = check_seed(seed)
    left, right = _two_spaces(memories)
    shared = _overlap_of(left, right, overlap)
    where = choose_device(device)
    outer = _outer_of(left, shared), _outer_of(right, shared)
    overlaps = overlap_rows(left.rows[shared], right.rows[shared], (left.space, right.space))
    _check_overlap_rows(overlaps, left, right, shared)
    sides = []
    for position, (space, other) in enumerate(zip((left, right), outer, strict=True)):
        report = _part_of(progress, "semantic consistency", position, 2)
        items = overlaps[position].to(where, torch.float32)
        key = (space.space, chosen.consistency_temperature, chosen.normalize_consistency)
        if counterparts is not None and chosen.semantic_consistency and key in counterparts:
            sides.append(Side(items, counterparts[key].to(where)))
            continue
        sides.append(_enhanced(items, space.rows[other], chosen, report))
        if counterparts is not None and chosen.semantic_consistency:
            counterparts[key] = sides[-1].consistent
    report = _part_of(progress, "training", 0, 1)
    trained = train(sides[0], sides[1], chosen, seed=seed, device=where, progress=report)
    return Connection(
        spaces=(_remembered(left, shared, outer[0]), _remembered(right, shared, outer[1])),
        projectors={left.space: trained.left, right.space: trained.right},
        overlap=shared,
        method=method,
        settings=chosen,
        seed=seed,
        overlap_rows=len(overlaps[0]),
        history=trained.history,
        encoders={m.space: m.encoder for m in (left, right) if m.encoder is not None},
    )


def _two_spaces(memories: Sequence[SpaceMemories | StoredMemory]) -> tuple[SpaceMemories, SpaceMemories]:
    """Tell the two spaces of what was given."""
    stored = [given for given in memories if isinstance(given, StoredMemory)]
    if stored and len(stored) == len(memories):
        return spaces_of(stored)
    for given in memories:
        if not isinstance(given, SpaceMemories):
            raise ConfigError(
                f"expected two cmcr.Memories, got {type(given).__name__}: wrap the arrays of each space, such as "
                'cmcr.Memories("clip", text=texts, image=pictures).'
            )
    if len(memories) != 2:
        raise ConfigError(f"expected two cmcr.Memories, or four cmcr.Memory on disk, got {len(memories)}.")
    left, right = (given for given in memories if isinstance(given, SpaceMemories))
    return left, right


def _enhanced(
    items: Tensor, memory: Tensor | StoredRows, settings: Settings, progress: Callable[[float], None] | None
) -> Side:
    """Give every overlap item of a space its semantically consistent counterpart."""
    if not settings.semantic_consistency:
        return Side(items, items)
    consistent = semantic_consistency(
        items,
        memory.to(items.device, torch.float32) if isinstance(memory, Tensor) else memory,
        settings.consistency_temperature,
        normalize=settings.normalize_consistency,
        progress=progress,
    )
    return Side(items, consistent)


def _overlap_of(left: SpaceMemories, right: SpaceMemories, overlap: str | None) -> str:
    """Find the shared modality, or check the one that was asked for."""
    if left.space == right.space:
        raise ConfigError(f"both spaces are called {left.space!r}: give them different names.")
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


def _outer_of(memories: SpaceMemories, overlap: str) -> str:
    """Find the one modality of a space besides the overlap."""
    others = [modality for modality in memories.rows if modality != overlap]
    if len(others) != 1:
        found = ", ".join(others) if others else "none"
        raise ConfigError(
            f"space {memories.space!r}: expected exactly one modality besides the overlap {overlap!r}, got {found}. "
            "Pass the overlap and the modality to be connected."
        )
    return others[0]


def _check_overlap_rows(
    overlaps: tuple[Tensor, Tensor], left: SpaceMemories, right: SpaceMemories, overlap: str
) -> None:
    counts = len(overlaps[0]), len(overlaps[1])
    if counts[0] != counts[1]:
        raise DimensionError(
            f"the overlap {overlap!r} has {counts[0]} rows in {left.space!r} and {counts[1]} in {right.space!r}: row i must "
            "be the same item in both. Embed the same list of items with both encoders."
        )
    if counts[0] < 2:
        raise TooFewRowsError(
            f"the overlap {overlap!r} has {counts[0]} row: at least 2 are needed to contrast, thousands to learn from."
        )


def _remembered(memories: SpaceMemories, overlap: str, other: str) -> ConnectedSpace:
    rows = memories.rows
    return ConnectedSpace(
        memories.space, (overlap, other), rows[overlap].shape[1], memories.fingerprint, outer_rows=len(rows[other])
    )


def _part_of(progress: Progress | None, stage: str, part: int, parts: int) -> Callable[[float], None] | None:
    """Report one of several equal parts of a stage as a share of the whole stage."""
    if progress is None:
        return None
    return lambda share: progress(stage, (part + share) / parts)

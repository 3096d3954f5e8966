"""Connect two spaces: enhancement, then training. This file is the paper's figure 2, read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from cmcr.arrays import Array, IndexedRows, StoredRows, all_rows, rows_of
from cmcr.connection.connection import ConnectedSpace, Connection, Encoder
from cmcr.connection.enhancement import semantic_consistency
from cmcr.connection.settings import Settings, check_seed, settings_of
from cmcr.connection.training import EnhancedSpace, train
from cmcr.engine.batches import Rows
from cmcr.engine.device import choose_device
from cmcr.engine.train_state import TrainState
from cmcr.errors import ConfigError, DimensionError, TooFewRowsError, unknown_name

Progress = Callable[[str, float], None]
"""Called with the stage's name and the share of it done, in (0, 1]."""


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


def connect(
    *memories: Any,
    overlap: str | None = None,
    method: str = "c-mcr",
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    consistent: Mapping[str, Array | IndexedRows] | None = None,
    resume_from: Mapping[str, Tensor] | None = None,
    after_step: Callable[[TrainState], None] | None = None,
    **settings: Any,
) -> Connection:
    """Connect two contrastive spaces through a modality they share, without any pair of their other modalities.

    Args:
        *memories: two `cmcr.Memories`, one a space: the overlap and exactly one other modality each. Row i of the overlap
            must be the same item in both; the rows of the other modalities need not belong to anything. Or four
            `cmcr.Memory` on disk, in any order, which know their space and modality; their overlap is matched by ids.
        overlap: the shared modality; may be left out if there is only one.
        method: `"c-mcr"` or `"c-mcr-published"` (see `cmcr.connection.settings`).
        seed: decides initial weights, order and noise; the same seed gives the same connection bit for bit on one
            machine.
        device: `"auto"` takes a GPU if there is one.
        progress: called with (stage, share done); the stages are "semantic consistency" and "training".
        consistent: semantically consistent rows by the space's name, used instead of computing them.
        resume_from: see `train`.
        after_step: see `train`.
        **settings: changes to the method's settings, such as `epochs=10` (see `cmcr.connection.settings.Settings`).

    Returns:
        The connection. Encoders of the memories, if any, stay attached to it.

    Raises:
        ConfigError: an unknown method, modality, setting or space; no or several shared modalities; equal names.
        DimensionError: different numbers of overlap rows, or widths of one space.
        NonFiniteError: NaN or infinity in a memory on disk.
        TooFewRowsError: fewer than two overlap rows.
        TrainingError: the loss diverged.
    """
    chosen = settings_of(method, **settings)
    seed = check_seed(seed)
    where = choose_device(device)
    left, right = two_spaces(memories, overlap)
    shared = overlap_of(left, right, overlap)
    outer = outer_of(left, shared), outer_of(right, shared)
    count = _overlap_count(left, right, shared)

    given, enhanced = consistent or {}, []
    for name in set(given) - {left.space, right.space}:
        raise unknown_name("space of the consistent rows", name, (left.space, right.space))
    for number, (space, other) in enumerate(((left, outer[0]), (right, outer[1]))):
        rows, report = given.get(space.space), _stage(progress, "semantic consistency", number, 2)
        if rows is None:
            rows = enhance(space.rows[shared], space.rows[other], chosen, where, report)
        elif not isinstance(rows, IndexedRows):
            rows = rows_of(rows, f"consistent rows of space {space.space!r}")
        enhanced.append(EnhancedSpace(space.rows[shared], rows))
    trained = train(
        enhanced[0],
        enhanced[1],
        chosen,
        seed=seed,
        device=where,
        progress=_stage(progress, "training", 0, 1),
        resume_from=resume_from,
        after_step=after_step,
    )
    return Connection(
        spaces=(_connected(left, shared, outer[0]), _connected(right, shared, outer[1])),
        projectors={left.space: trained.left, right.space: trained.right},
        overlap=shared,
        method=method,
        settings=chosen,
        seed=seed,
        overlap_rows=count,
        history=trained.history,
        encoders={space.space: space.encoder for space in (left, right) if space.encoder is not None},
    )


def enhance(
    overlap: Rows,
    outer: Rows,
    settings: Settings,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Compute the semantically consistent rows `(n, D)` of a whole overlap by the settings of a connection."""
    rows = overlap if isinstance(overlap, Tensor) else all_rows(overlap)
    if not settings.semantic_consistency:
        return rows
    return semantic_consistency(
        rows,
        outer,
        settings.consistency_temperature,
        normalize=settings.normalize_consistency,
        precision=settings.precision,
        device=device,
        progress=progress,
    )


def two_spaces(memories: Sequence[Any], overlap: str | None = None) -> tuple[SpaceMemories, SpaceMemories]:
    """Find the two spaces in what was given; raise a `ConfigError` where there are not two."""
    if memories and all(isinstance(given, StoredRows) for given in memories):
        spaces: tuple[SpaceMemories, SpaceMemories] = memories[0].by_space(memories, overlap)
        return spaces
    if len(memories) != 2 or not all(isinstance(given, SpaceMemories) for given in memories):
        found = ", ".join(type(given).__name__ for given in memories) or "nothing"
        raise ConfigError(
            f"expected two cmcr.Memories, or four cmcr.Memory on disk, got {found}. Wrap the arrays of each space, such as "
            'cmcr.Memories("clip", text=texts, image=pictures).'
        )
    left, right = memories
    return left, right


def overlap_of(left: SpaceMemories, right: SpaceMemories, overlap: str | None) -> str:
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


def outer_of(memories: SpaceMemories, overlap: str) -> str:
    """Find the one modality of a space besides the overlap."""
    others = [modality for modality in memories.rows if modality != overlap]
    if len(others) != 1:
        raise ConfigError(
            f"space {memories.space!r}: expected exactly one modality besides the overlap {overlap!r}, got "
            f"{', '.join(others) or 'none'}. Pass the overlap and the modality to be connected."
        )
    return others[0]


def _overlap_count(left: SpaceMemories, right: SpaceMemories, overlap: str) -> int:
    counts = len(left.rows[overlap]), len(right.rows[overlap])
    if counts[0] != counts[1]:
        raise DimensionError(
            f"the overlap {overlap!r} has {counts[0]} rows in {left.space!r} and {counts[1]} in {right.space!r}: row i must "
            "be the same item in both. Embed the same list of items with both encoders."
        )
    if counts[0] < 2:
        raise TooFewRowsError(f"the overlap {overlap!r}: at least 2 rows are needed to contrast, got {counts[0]}.")
    return counts[0]


def _stage(progress: Progress | None, stage: str, part: int, parts: int) -> Callable[[float], None] | None:
    """Report one of several equal parts of a stage as a share of the whole."""
    return None if progress is None else lambda done: progress(stage, (part + done) / parts)


def _connected(memories: SpaceMemories, overlap: str, other: str) -> ConnectedSpace:
    width, outer_rows = memories.rows[overlap].shape[1], len(memories.rows[other])
    return ConnectedSpace(memories.space, (overlap, other), width, memories.fingerprint, outer_rows)

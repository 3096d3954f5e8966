"""Connect spaces: find what they share, fit a method's maps, and keep the parents beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from cmcr.arrays import Array, IndexedRows, StoredRows, rows_of
from cmcr.connection.connection import ConnectedSpace, Connection, Encoder
from cmcr.connection.diagnosis import measure
from cmcr.connection.maps import Identity
from cmcr.connection.methods import METHODS, settings_of
from cmcr.connection.methods.fitting import Fitted, Parent, Progress, Run, second_moment
from cmcr.connection.settings import MethodSettings, check_seed
from cmcr.engine.batches import Rows
from cmcr.engine.device import choose_device
from cmcr.engine.precision import guarded_torch_state
from cmcr.engine.train_state import TrainState
from cmcr.errors import ConfigError, DimensionError, TooFewRowsError, unknown_name


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
    base: str | None = None,
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
        method: one of `cmcr.connection.methods.METHODS`.
        base: the name of a space whose rows stay as they are: the other space is carried into its coordinates and width,
            so that an index of its rows stays valid. None makes a direct sum, in which both spaces keep their own
            retrieval (see `Connection`).
        seed: decides all that is drawn (initial weights, order, noise); the same seed gives the same connection bit for
            bit on one machine.
        device: `"auto"` takes a GPU if there is one.
        progress: called with (stage, share done), such as ("training", 0.5).
        consistent: semantically consistent rows by the space's name, used instead of computing them.
        resume_from: see `train`.
        after_step: see `train`.
        **settings: changes to the method's settings, such as `epochs=10` (see `cmcr.connection.settings.Settings`).

    Returns:
        The connection. Encoders of the memories, if any, stay attached to it.

    Raises:
        ConfigError: an unknown method, modality, setting or space; no or several shared modalities; equal names; a base
            with a method that has none.
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
    given = {name: _consistent(rows, name) for name, rows in (consistent or {}).items()}
    for name in set(given) - {left.space, right.space}:
        raise unknown_name("space of the consistent rows", name, (left.space, right.space))
    parents = [Parent(space.rows[shared], space.rows[own]) for space, own in zip((left, right), outer, strict=True)]
    rows = given.get(left.space), given.get(right.space)
    run = Run(seed, where, progress, rows, resume_from, after_step)
    with guarded_torch_state(where):
        fitted = (
            METHODS[method].fit(parents[0], parents[1], chosen, run)
            if base is None
            else _into(base, (left.space, right.space), parents, method, chosen, run)
        )
    spaces = _connected(left, shared, outer[0]), _connected(right, shared, outer[1])
    found = Connection(
        spaces=spaces,
        projectors={left.space: _frozen(fitted.left), right.space: _frozen(fitted.right)},
        overlap=shared,
        method=method,
        settings=chosen,
        seed=seed,
        overlap_rows=count,
        own_share=0.0 if base else chosen.own_share,
        own_axes={} if base else _own_axes((left.space, right.space), parents, chosen),
        base=base,
        history=fitted.history,
        report=fitted.report,
        encoders={space.space: space.encoder for space in (left, right) if space.encoder is not None},
    )
    measured = measure(found, (left.space, right.space), shared, (parents[0], parents[1]))
    return replace(found, report={**fitted.report, "measured": measured})


def _into(
    base: str, names: tuple[str, str], parents: Sequence[Parent], method: str, settings: MethodSettings, run: Run
) -> Fitted:
    """Carry one space into the coordinates of the other."""
    if base not in names:
        raise unknown_name("base", base, names)
    into = METHODS[method].into
    if into is None:
        able = ", ".join(name for name, known in METHODS.items() if known.into)
        raise ConfigError(f"base: the method {method!r} leaves no space as it is; these do: {able}.")
    stays = names.index(base)
    kept = Identity(parents[stays].width)
    if stays:
        swapped = replace(run, consistent=run.consistent[::-1])
        return Fitted(into(parents[1], parents[0], settings.swapped(), swapped), kept)
    return Fitted(kept, into(parents[0], parents[1], settings, run))


def _own_axes(names: tuple[str, str], parents: Sequence[Parent], settings: MethodSettings) -> dict[str, Tensor]:
    """Find the axes of own blocks that are to be narrower than their space: the leading ones of all rows."""
    found = {}
    for name, parent in zip(names, parents, strict=True):
        if settings.own_share and settings.own_width and settings.own_width + 1 < parent.width:
            both = second_moment(parent.overlap) + second_moment(parent.outer)
            found[name] = torch.linalg.eigh(both)[1][:, -settings.own_width :].flip(1).float().contiguous()
    return found


def _frozen(found: torch.nn.Module) -> Any:
    return found.cpu().float().eval().requires_grad_(False)


def _consistent(rows: Array | IndexedRows, name: str) -> Rows:
    return rows if isinstance(rows, IndexedRows) else rows_of(rows, f"consistent rows of space {name!r}")


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


def _connected(memories: SpaceMemories, overlap: str, other: str) -> ConnectedSpace:
    width, outer_rows = memories.rows[overlap].shape[1], len(memories.rows[other])
    return ConnectedSpace(memories.space, (overlap, other), width, memories.fingerprint, outer_rows)

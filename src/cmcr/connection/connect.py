"""Connect two spaces: enhancement, then training. This file is the paper's figure 2, read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from cmcr._version import __version__
from cmcr.arrays import StoredRows
from cmcr.connection.agreement import failing_together
from cmcr.connection.arguments import check_callable, check_folder, check_kind
from cmcr.connection.checkpoint import digest_of, open_checkpoint
from cmcr.connection.connection import ConnectedSpace, Connection, Encoder
from cmcr.connection.counterparts import Work, consistent_rows
from cmcr.connection.modes import float32_on, plain_modes
from cmcr.connection.peers import peers_here
from cmcr.connection.residence import room_for
from cmcr.connection.settings import Settings, check_seed, settings_of
from cmcr.connection.sides import Side
from cmcr.connection.stored import Places, StoredMemory, rows_at, shared_places, spaces_of
from cmcr.connection.training import Trained, check_size, train
from cmcr.engine.device import choose_device
from cmcr.errors import ConfigError, DimensionError, TooFewRowsError, unknown_name

Progress = Callable[[str, float], None]
"""Called with the stage's name and the share of it done, in (0, 1]."""

Counterparts = MutableMapping[tuple[str, float, bool, str], Tensor]
"""Semantically consistent rows, by space, temperature, whether they were made unit rows, and precision."""


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
    checkpoint: str | Path | None = None,
    **settings: Any,
) -> Connection:
    """Connect two contrastive spaces through a modality they share, without any pair of their other modalities.

    Where torch.distributed is initialised, its processes compute together: each calls this with the same arguments, and
    all get the same connection. Embeddings that RAM does not hold are kept in files while they are needed.

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
            several calls with the same memories, which then compute them once. With a checkpoint it is filled only.
            Rows that RAM does not hold stay in files while it holds them; Windows then leaves these in the temporary folder.
        checkpoint: a folder in which the work is kept: semantically consistent rows, and every minute and on Ctrl-C or
            SIGTERM the state of the training. Called again with the same arguments after the process ended, it goes on
            from there, on one machine to the same weights bit for bit. Whoever has saved the connection removes it, by
            `cmcr.remove_checkpoint`. Several processes must share the folder.
        **settings: changes to the method's settings, such as `epochs=10` (see `cmcr.connection.settings.Settings`).

    Returns:
        The connection. Encoders of the memories, if any, stay attached to it.

    Raises:
        ConfigError: an unknown method, modality or setting; no or several shared modalities; equal names; an argument of
            another kind; settings for which no memory suffices.
        DimensionError: different numbers of overlap rows, or widths of one space.
        NonFiniteError: NaN or infinity in a memory on disk.
        TooFewRowsError: fewer than two overlap rows.
        TrainingError: the loss diverged.
        LockedError: another run holds the checkpoint.
        ResumeError: the checkpoint is of other memories, settings, seed, device, versions or number of processes; the
            message says what differs.
        FormatError, IntegrityError: something else is at the checkpoint, or it is damaged.
        WriteError: no room for the checkpoint, or for embeddings that RAM does not hold.
        WorkerError: another of several processes has failed.
    """
    chosen = settings_of(method, **settings)
    check_folder("checkpoint", checkpoint)
    check_callable("progress", progress)
    check_kind("counterparts", counterparts, MutableMapping, "a mapping that can be changed, such as {}")
    seed = check_seed(seed)
    left, right = _two_spaces(memories)
    shared = overlap_of(left, right, overlap)
    where = choose_device(device)
    outer = outer_of(left, shared), outer_of(right, shared)
    places = shared_places(left.rows[shared], right.rows[shared], (left.space, right.space))
    count = _check_overlap_rows(places[0], left, right, shared)
    check_size(chosen, (left.rows[shared].shape[1], right.rows[shared].shape[1]), count, where)
    peers = peers_here()
    with plain_modes(where), ExitStack() as held:
        with failing_together(peers, where):  # nor may one go on into a folder that the first still clears
            kept = held.enter_context(open_checkpoint(Path(checkpoint), peers)) if checkpoint is not None else None
        with failing_together(peers, where):
            size = _size_of_rows((left, right), shared, count, where, chosen)
            room = room_for(size, where, processes=peers.size, folder=kept.folder if kept else None)
            empty = held.enter_context(room)
        work = Work(chosen, where, peers, empty, kept)
        trained = _trained((left, right), shared, places, work, seed, progress, counterparts)
    return Connection(
        spaces=(_remembered(left, shared, outer[0]), _remembered(right, shared, outer[1])),
        projectors={left.space: trained.left, right.space: trained.right},
        overlap=shared,
        method=method,
        settings=chosen,
        seed=seed,
        overlap_rows=count,
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


def _trained(
    spaces: tuple[SpaceMemories, SpaceMemories],
    shared: str,
    places: tuple[Places, Places],
    work: Work,
    seed: int,
    progress: Progress | None,
    counterparts: Counterparts | None,
) -> Trained:
    """Enhance and train. A function of its own: files cannot be removed everywhere while a variable holds their rows."""
    left, right = spaces
    outer = outer_of(left, shared), outer_of(right, shared)
    with failing_together(work.peers, work.device):
        overlaps = rows_at(left.rows[shared], places[0], work.empty), rows_at(right.rows[shared], places[1], work.empty)
        if work.checkpoint is not None:
            rows_of_both = _identity_of_rows(overlaps, spaces, shared, outer, work)
            work.checkpoint.begin(rows_of_both, {**asdict(work.settings), "seed": seed})
    sides = []
    for position, space in enumerate(spaces):
        report = _part_of(progress, "semantic consistency", position, 2)
        memory, side = space.rows[outer[position]], ("left", "right")[position]
        consistent = _consistent(overlaps[position], memory, work, side, report, counterparts, space.space)
        sides.append(Side(overlaps[position], consistent))
    return train(
        sides[0],
        sides[1],
        work.settings,
        seed=seed,
        device=work.device,
        progress=_part_of(progress, "training", 0, 1),
        peers=work.peers,
        checkpoint=work.checkpoint,
    )


def _consistent(
    items: Tensor,
    memory: Tensor | StoredRows,
    work: Work,
    side: str,
    progress: Callable[[float], None] | None,
    counterparts: Counterparts | None,
    space: str,
) -> Tensor:
    """Give every overlap item of a space its semantically consistent counterpart, unless the caller has them."""
    settings = work.settings
    if not settings.semantic_consistency:
        return items
    key = (space, settings.consistency_temperature, settings.normalize_consistency, settings.precision)
    if counterparts is not None and key in counterparts and work.checkpoint is None:  # its identity names them not
        return counterparts[key]
    found = consistent_rows(items, memory, work, side, progress)
    if counterparts is not None:
        counterparts[key] = found
    return found


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
        found = ", ".join(others) if others else "none"
        raise ConfigError(
            f"space {memories.space!r}: expected exactly one modality besides the overlap {overlap!r}, got {found}. "
            "Pass the overlap and the modality to be connected."
        )
    return others[0]


def _check_overlap_rows(places: Places, left: SpaceMemories, right: SpaceMemories, overlap: str) -> int:
    """Count the items of the overlap."""
    if places is not None:
        return len(places)
    counts = len(left.rows[overlap]), len(right.rows[overlap])
    if counts[0] != counts[1]:
        raise DimensionError(
            f"the overlap {overlap!r} has {counts[0]} rows in {left.space!r} and {counts[1]} in {right.space!r}: row i must "
            "be the same item in both. Embed the same list of items with both encoders."
        )
    if counts[0] < 2:
        raise TooFewRowsError(
            f"the overlap {overlap!r} has {counts[0]} row: at least 2 are needed to contrast, thousands to learn from."
        )
    return counts[0]


def _size_of_rows(
    spaces: tuple[SpaceMemories, SpaceMemories], overlap: str, count: int, device: torch.device, settings: Settings
) -> int:
    """Count the bytes that the overlap and its counterparts need beside what is in RAM already."""
    size = 0
    for space in spaces:
        rows = space.rows[overlap]
        there = device.type == "cpu" and isinstance(rows, Tensor)
        size += 4 * count * rows.shape[1] * ((not there) + settings.semantic_consistency)
    return size


def _identity_of_rows(
    overlaps: tuple[Tensor, Tensor],
    spaces: tuple[SpaceMemories, SpaceMemories],
    overlap: str,
    outer: tuple[str, str],
    work: Work,
) -> dict[str, Any]:
    """Name what decides about the rows to train on: embeddings, by their hashes, and how counterparts are computed."""
    settings = work.settings
    names = ("semantic_consistency", "consistency_temperature", "normalize_consistency", "precision")
    identity = {name: getattr(settings, name) for name in names}
    identity["order of the spaces"] = [space.space for space in spaces]  # which decides what is drawn for either
    for rows, space, other in zip(overlaps, spaces, outer, strict=True):
        identity[f"embeddings of {overlap} in {space.space}"] = digest_of(rows)
        if settings.semantic_consistency:
            identity[f"embeddings of {other} in {space.space}"] = digest_of(space.rows[other])
    return {
        **identity,
        "device": work.device.type,
        **float32_on(work.device),
        "number of processes": work.peers.size,
        "version of cmcr": __version__,
        "version of torch": torch.__version__,
    }


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

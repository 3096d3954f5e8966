"""Connect spaces: find what they share, fit a method's maps, and keep the parents beside them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cmcr.arrays import Array, IndexedRows, rows_of
from cmcr.connection.chains import join
from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.connection.diagnosis import examine, findings, measure
from cmcr.connection.links import Link, Overlap, SpaceMemories, check_whole, links_of, spaces_of
from cmcr.connection.methods import settings_of
from cmcr.connection.methods.fitting import Run, second_moment
from cmcr.connection.settings import MethodSettings, check_seed
from cmcr.connection.summary import in_short, summarize
from cmcr.engine.batches import Rows
from cmcr.engine.device import choose_device
from cmcr.engine.precision import fast_float32, guarded_torch_state
from cmcr.engine.train_state import TrainState
from cmcr.errors import ConfigError, PoorInputWarning, unknown_name
from cmcr.progress import Progress, looked_at, stages
from cmcr.terminal import plain


def connect(
    *memories: Any,
    overlap: Overlap = None,
    method: str = "auto",
    base: str | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    show_progress_bar: bool | None = None,
    consistent: Mapping[str, Array | IndexedRows] | None = None,
    resume_from: Mapping[str, Tensor] | None = None,
    after_step: Callable[[TrainState], None] | None = None,
    choice: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Connection:
    """Connect contrastive spaces through modalities they share, without any pair of their other modalities.

    What will hardly make a good connection is warned of (`cmcr.errors.PoorInputWarning`) before anything is fitted: too few
    rows, an overlap whose rows do not belong together, towers that give all items one row.

    Two spaces as the paper does; more through chains of overlaps, such as CLAP - CLIP - ULIP (see `cmcr.connection.chains`).

    Args:
        *memories: two or more `cmcr.Memories`, one a space: the overlap and at least one other modality each. Row i of an
            overlap must be the same item in both spaces; the rows of the other modalities need not belong to anything,
            several of them are taken together. Or four or more `cmcr.Memory` on disk, in any order, which know their space
            and modality; their overlaps are matched by ids.
        overlap: the shared modality; may be left out if there is only one. Of more than two spaces all that share a
            modality are linked, unless this names the links: ``{("clip", "clap"): "text", ("clip", "ulip"): "image"}``.
        method: one of `cmcr.connection.methods.METHODS`; `"auto"` chooses one without a pair, in about a minute.
        base: the name of a space whose rows stay as they are: all others are carried into its coordinates and width, so
            that an index of its rows stays valid. None makes a direct sum, in which all spaces keep their own retrieval
            (see `Connection`).
        seed: decides all that is drawn (initial weights, order, noise); the same seed gives the same connection bit for
            bit on one machine.
        device: `"auto"` takes a GPU if there is one.
        progress: called with (stage, share done), such as ("training", 0.5).
        show_progress_bar: None shows bars with the time left where a person looks, unless there is `progress`.
        consistent: semantically consistent rows by the space's name, used instead of computing them; this and the next three
            are for two spaces only.
        resume_from: see `train`.
        after_step: see `train`.
        choice: what `auto` chose before, `connection.report["choice"]`, so that it does not choose anew.
        **settings: changes to the method's settings, such as `method="c-mcr", epochs=10` (see
            `cmcr.connection.settings.Settings`).

    Returns:
        The connection. Encoders of the memories, if any, stay attached to it.

    Raises:
        ConfigError: an unknown method, modality, setting or space; no or several shared modalities; spaces that no chain of
            overlaps joins; equal names; a base with a method that has none.
        DimensionError: different numbers of overlap rows, or widths of one space.
        IntegrityError: a memory on disk is damaged; all of its files are hashed first.
        NonFiniteError: NaN or infinity in a memory on disk.
        TooFewRowsError: fewer than two rows of the overlap, or of what it is to connect.
        TrainingError: the loss diverged.
    """
    chosen = settings_of(method, **settings)
    seed = check_seed(seed)
    where = choose_device(device)
    spaces = spaces_of(memories, overlap)
    links = links_of(spaces, overlap)
    names = [space.space for space in spaces]
    given = {name: _consistent(rows, name) for name, rows in (consistent or {}).items()}
    for name in set(given) - set(names):
        raise unknown_name("space of the consistent rows", name, names)
    if len(spaces) > 2 and (given or resume_from or after_step or choice):
        raise ConfigError(
            "consistent, resume_from, after_step and choice are for two spaces: of more, connect two at a time."
        )
    shown = stages(show_progress_bar) if progress is None else nullcontext(progress)
    # All of it in one mode of the process, so that a connection beside it in another thread changes nothing.
    with shown as report, guarded_torch_state(where), fast_float32():
        check_whole(spaces, report)
        examined = look_over(links, seed)
        pairs = [(link.names, link.overlap, link.parents) for link in links]
        run = Run(seed, where, report, (given.get(names[0]), given.get(names[1])), resume_from, after_step, choice)
        joined = join(links, names, base, method, chosen, run)
        own_axes = {} if base else _own_axes(spaces, chosen)
    counts = {link.overlap: len(link.left.rows[link.overlap]) for link in links}
    found = Connection(
        spaces=tuple(_connected(space, links) for space in spaces),
        projectors={name: _frozen(joined.maps[name]) for name in names},
        overlap=", ".join(counts),
        method=method,
        settings=chosen,
        seed=seed,
        overlap_rows=sum(counts.values()),
        own_share=0.0 if base else chosen.own_share,
        own_axes=own_axes,
        base=base,
        history=joined.history,
        report=joined.report,
        encoders={space.space: space.encoder for space in spaces if space.encoder is not None},
        references={
            space.space: {m: rows.references for m, rows in known.items()}
            for space in spaces
            if (known := _with_references(space))
        },
        versions=next((rows.versions for space in spaces for rows in _with_references(space).values()), {}),
    )
    measured = examined + [part for pair, shared, parents in pairs for part in measure(found, pair, shared, parents)]
    once = {(part["check"], part["where"]): part for part in measured}  # a space may have several links
    short = [summarize(found, pair, parents) for pair, _, parents in pairs]
    found = replace(found, report={**joined.report, "measured": list(once.values()), "in_short": short})
    if progress is None and looked_at(show_progress_bar):
        print(*map(plain, in_short(found)), sep="\n", file=sys.stderr)
    return found


def look_over(links: Sequence[Link], seed: int) -> list[dict[str, Any]]:
    """Examine the rows of links, and warn of those from which no good connection can come before time is spent on it.

    Returns:
        what `examine` says of each link.
    """
    examined = [
        part
        for link in links
        for part in examine(
            link.names,
            link.overlap,
            (_outer(link.left, link.overlap), _outer(link.right, link.overlap)),
            link.parents,
            seed,
        )
    ]
    for finding in findings(examined):
        if not finding.ok:
            said = f"{finding.name}, {finding.where}: {finding.message} {finding.advice}"
            warnings.warn(said, PoorInputWarning, stacklevel=3)  # to the caller of `connect`
    return examined


def _outer(space: SpaceMemories, overlap: str) -> str:
    return ", ".join(modality for modality in space.rows if modality != overlap)


def _with_references(space: SpaceMemories) -> dict[str, Any]:
    """Find the memories on disk that know what their encoder made of fixed inputs, by modality."""
    return {m: rows for m, rows in space.rows.items() if getattr(rows, "references", None) is not None}


def _own_axes(spaces: Sequence[SpaceMemories], settings: MethodSettings) -> dict[str, Tensor]:
    """Find the axes of own blocks that are to be narrower than their space: the leading ones of all rows."""
    found: dict[str, Tensor] = {}
    if not settings.own_share or not settings.own_width:
        return found
    for space in spaces:
        memories = list(space.rows.values())
        if settings.own_width + 1 < memories[0].shape[1]:
            moments = torch.stack([second_moment(rows) for rows in memories]).sum(dim=0)
            found[space.space] = torch.linalg.eigh(moments)[1][:, -settings.own_width :].flip(1).float().contiguous()
    return found


def _connected(space: SpaceMemories, links: Sequence[Link]) -> ConnectedSpace:
    """Describe a space: its overlaps first, then what only it has."""
    overlaps = [link.overlap for link in links if space in (link.left, link.right)]
    modalities = tuple(dict.fromkeys([*overlaps, *space.rows]))
    outer_rows = sum(len(space.rows[modality]) for modality in modalities[1:])
    width = space.rows[overlaps[0]].shape[1]
    return ConnectedSpace(space.space, modalities, width, space.fingerprint, outer_rows)


def _frozen(found: torch.nn.Module) -> Any:
    return found.cpu().float().eval().requires_grad_(False)


def _consistent(rows: Array | IndexedRows, name: str) -> Rows:
    return rows if isinstance(rows, IndexedRows) else rows_of(rows, f"consistent rows of space {name!r}")

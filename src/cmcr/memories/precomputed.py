"""Write rows that were embedded elsewhere into a memory: `cmcr.write_memory`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmcr.arrays import Array, normalized, rows_of
from cmcr.errors import ConfigError, NonFiniteError, ZeroRowError, unknown_name
from cmcr.memories.given_rows import given_rows
from cmcr.memories.layout import DTYPES, Origin
from cmcr.memories.memories import MODALITIES
from cmcr.memories.memory import Memory
from cmcr.memories.row_source import Block, RowSource
from cmcr.memories.row_writing import OnProgress, Prepare, write_rows
from cmcr.memories.shards import as_kept

_ROUNDING = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7, torch.float32: 2.0**-20, torch.float64: 2.0**-20}
"""By how much the length of a unit row may be off after it was rounded to a dtype."""
_SMALLEST, _LARGEST = 1e-15, 1e15  # lengths whose squares neither vanish nor overflow in float32
_SMALL = 32_767  # values with which torch works in one thread: shards are prepared side by side, and more get in each
# other's way; a processor's cache holds them too

_LOOKED_AT = 4096  # rows after which it is seen that some are not of unit length

Blocks = Iterable[Array] | Iterable[tuple[Array, Sequence[str]]]
"""Blocks of rows; or of rows and their ids."""


def write_memory(
    out: str | Path,
    blocks: Array | Blocks | Callable[[], Iterator[Any]],
    ids: Sequence[str] | None = None,
    *,
    space: str,
    modality: str,
    fingerprint: str | None = None,
    model: str | None = None,
    revision: str | None = None,
    dtype: str = "float16",
    shard_items: int | None = None,
    sources: Sequence[str] | None = None,
    quarantine: bool = False,
) -> Memory:
    """Write rows that were embedded elsewhere into a memory on disk, or go on with a run that was stopped.

        cmcr.write_memory("pictures-in-clip", rows, ids, space="clip", modality="image")

    Rows are scaled to unit length, whatever their length; a row whose length is one already, within the rounding of the
    dtype it comes in or is kept in, keeps its bits. Rows are streamed: a few shards lie in RAM.

    Whether a run is gone on with is decided by ids, their number and the width, not by the rows themselves: to write other
    rows under the same ids, choose another folder.

    Args:
        out: folder of the memory.
        blocks: `(n, D)` floating point, numpy (a memory map too) or torch; or an iterable of such blocks of any length,
            or of `(rows, ids)`. An iterable of pairs is walked twice, first for the ids; an iterator, which can be walked
            only once, is put into a temporary file beside `out` first: give `ids`, or a function that returns a new
            iterator, to spare that.
        ids: of all rows, unique; None takes those of the blocks, or else numbers rows "0", "1", ...
        space: the space's name.
        modality: what was embedded: "image", "text", "audio" or "point_cloud".
        fingerprint: of the encoders' weights and preprocessing, None if unknown.
        model: which model, None if unknown.
        revision: its commit, None if unknown.
        dtype: in which rows are kept: "float16", "bfloat16" or "float32".
        shard_items: items a shard; None takes the power of two that fills some 64 MiB.
        sources: where each item came from; None takes the ids.
        quarantine: put rows that are not finite or all zeros into the quarantine table. By default they are refused: a
            row less would shift those that are paired with another memory by their position.

    Returns:
        the finished memory.

    Raises:
        TooFewRowsError: no rows.
        ConfigError: ids that occur twice or are no strings, an unknown modality or dtype.
        DimensionError: not two axes, other numbers of ids than rows, widths that differ.
        DtypeError: not floating point.
        NonFiniteError, ZeroRowError: a row that cannot be used; finished shards are kept, so mend it and run it again.
        LockedError: another run is writing there.
        ResumeError: begun with other ids or settings; the message says what differs.
        WriteError: no permission, disk full; finished shards are kept.
    """
    origin = checked_origin(space, modality, fingerprint, model, revision, dtype)
    with given_rows(blocks, ids, sources, Path(out)) as source:
        return write_unit_rows(out, source, origin, shard_items=shard_items, quarantine=quarantine)


def checked_origin(
    space: str, modality: str, fingerprint: str | None, model: str | None, revision: str | None, dtype: str
) -> Origin:
    """Say what made rows, after checking it.

    Raises:
        ConfigError: no name, an unknown modality or dtype.
    """
    if not isinstance(space, str) or not space.strip():
        raise ConfigError(f"space: expected the space's name, got {space!r}.")
    if modality not in MODALITIES:
        raise unknown_name("modality", modality, MODALITIES)
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    return Origin(space, modality, fingerprint, model, revision, dtype)


def write_unit_rows(
    out: str | Path,
    source: RowSource,
    origin: Origin,
    *,
    shard_items: int | None = None,
    quarantine: bool = False,
    on_progress: OnProgress | None = None,
) -> Memory:
    """Write the rows of a source, scaled to unit length, into a memory; as `write_memory`."""
    prepare = _preparation(source.description, origin.dtype, quarantine)
    return write_rows(out, source, origin, shard_items=shard_items, prepare=prepare, on_progress=on_progress)


def _preparation(description: str, dtype: str, quarantine: bool) -> Prepare:
    def prepare(block: Block, first: int) -> Block:
        if not len(block.rows):
            return replace(block, rows=as_kept(block.rows, dtype))
        rows, usable = unit_rows_kept(rows_of(block.rows, description).detach().cpu(), dtype)
        if usable.all():
            return replace(block, rows=rows)
        places = [place for place in range(len(block.ids)) if place not in block.missing]
        bad = {places[row]: _fault(block.rows[row]) for row in (~usable).nonzero()[:, 0].tolist()}
        if not quarantine:
            raise _refusal(description, block, first, min(bad), bad[min(bad)])
        return replace(block, rows=rows[usable], missing={**block.missing, **bad})

    return prepare


def unit_rows_kept(rows: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """Scale rows to unit length and round them to the dtype in which they are kept.

    Args:
        rows: `(n, D)` floating point, on the CPU.
        dtype: of the memory.

    Returns:
        `(n, D)` rows, on the same memory where nothing had to be changed; and `(n,)` which of them can be used: the
        others are not finite, or all zeros.
    """
    at_once = max(1, _SMALL // rows.shape[1])
    if rows.dtype == DTYPES[dtype] and _surely_unit(rows, at_once):
        return rows, torch.ones(len(rows), dtype=torch.bool)
    parts = [slice(start, start + at_once) for start in range(0, len(rows), at_once)]
    lengths = torch.cat([torch.linalg.vector_norm(_working(rows[part]), dim=1) for part in parts])
    if not ((lengths > _SMALLEST) & (lengths < _LARGEST)).all():
        return _carefully(rows, lengths, dtype)
    usable = torch.ones(len(rows), dtype=torch.bool)
    divisors = _divisors(rows, lengths, dtype)
    if bool((divisors == 1).all()) and rows.dtype == DTYPES[dtype]:
        return rows, usable
    kept = torch.empty(rows.shape, dtype=DTYPES[dtype])
    for part in parts:
        kept[part] = _working(rows[part]) / divisors[part]
    return kept, usable


def _surely_unit(rows: Tensor, at_once: int) -> bool:
    """Find out fast whether all rows are finite and of unit length, with a margin for another order of summation.

    The lengths are summed as rows are converted, in a third of the time: what is not sure is looked at again.
    """
    margin = 0.75 * _ROUNDING[rows.dtype]
    working = torch.float64 if rows.dtype == torch.float64 else torch.float32
    for start in range(0, len(rows), _LOOKED_AT):
        some = rows[start : start + _LOOKED_AT]
        lengths = torch.empty(len(some), dtype=working)
        for part, out in zip(some.split(at_once), lengths.split(at_once), strict=True):
            torch.linalg.vector_norm(part, dim=1, dtype=working, out=out)
        if not bool(((lengths - 1).abs() <= margin).all()):  # nor where it is NaN
            return False
    return True


def _working(rows: Tensor) -> Tensor:
    return rows if rows.dtype == torch.float64 else rows.float()


def _divisors(rows: Tensor, lengths: Tensor, dtype: str) -> Tensor:
    """Choose what each row `(n, 1)` is divided by: nothing where it is of unit length already."""
    rounding = max(_ROUNDING[rows.dtype], _ROUNDING[DTYPES[dtype]])
    return torch.where((lengths - 1).abs() > rounding, lengths, 1).unsqueeze(1)


def _carefully(rows: Tensor, lengths: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """Scale rows some of which have no direction, or lengths that overflow or vanish."""
    work = _working(rows)
    usable = work.isfinite().all(dim=1) & (work != 0).any(dim=1)
    ordinary = ((lengths > _SMALLEST) & (lengths < _LARGEST)).unsqueeze(1)
    odd = normalized(torch.where(usable.unsqueeze(1), work, 0))
    return as_kept(torch.where(ordinary, work / _divisors(rows, lengths, dtype), odd), dtype), usable


def _fault(row: Tensor) -> str:
    finite = np.isfinite(row.double().numpy())
    return "all zeros: it has no direction" if finite.all() else f"NaN or infinity in {int((~finite).sum())} value(s)"


def _refusal(description: str, block: Block, first: int, place: int, fault: str) -> NonFiniteError | ZeroRowError:
    kind = ZeroRowError if fault.startswith("all zeros") else NonFiniteError
    return kind(
        f"{description}: row {first + place} (id {block.ids[place]!r}): {fault}. Mend it and run it again, or leave "
        "such rows to the quarantine table with quarantine=True (--quarantine)."
    )

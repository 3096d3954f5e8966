"""Write rows that were embedded elsewhere into a memory: `cmcr.write_memory`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmcr.arrays import Array, normalized, rows_of
from cmcr.errors import (
    ConfigError,
    DimensionError,
    DtypeError,
    NonFiniteError,
    TooFewRowsError,
    ZeroRowError,
    unknown_name,
)
from cmcr.memories.layout import DTYPES, Origin, Quarantined
from cmcr.memories.memories import MODALITIES
from cmcr.memories.memory import Memory
from cmcr.memories.survey import survey
from cmcr.memories.writer import MemoryWriter, open_writer

_ROUNDING = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7, torch.float32: 2.0**-20, torch.float64: 2.0**-20}
"""By how much the length of a unit row may be off after it was rounded to a dtype."""
_SHARD_BYTES = 64 * 2**20  # every shard waits for the disk five times
_FEWEST = 1024
_SLICE = 16_384  # rows taken from an array together: those of foreign byte order are copied

OnProgress = Callable[[float], None]
"""Called with the share of the work that is done, in (0, 1]."""


def write_memory(
    out: str | Path,
    blocks: Array | Iterable[Array],
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
    on_progress: OnProgress | None = None,
) -> Memory:
    """Write rows that were embedded elsewhere into a memory on disk, or resume a run that was stopped.

        cmcr.write_memory("pictures-in-clip", rows, ids, space="clip", modality="image")

    Rows are scaled to unit length, whatever their length; a row whose length is one already, within the rounding of the
    dtype it comes in or is kept in, keeps its bits. Rows are streamed: a shard or two lie in RAM, and all ids.

    Whether a run is resumed is decided by ids and their number, not by the rows themselves: to write other rows under the
    same ids, choose another folder.

    Args:
        out: folder of the memory.
        blocks: `(n, D)` floating point, numpy (a memory map too) or torch; or an iterable of such blocks of any length,
            a generator too: it is walked once.
        ids: of all rows, unique. May be left out for an array, whose rows are then numbered "0", "1", ...
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
        on_progress: called with the share of the work that is done, in (0, 1].

    Returns:
        the finished memory.

    Raises:
        TooFewRowsError: no rows.
        ConfigError: ids that are missing, occur twice or are not strings, an unknown modality or dtype.
        DimensionError: not two axes, other numbers of ids than rows, widths that differ.
        DtypeError: not floating point.
        NonFiniteError, ZeroRowError: a row that cannot be used; finished shards are kept, so fix it and run it again.
        LockedError: another run is writing there.
        ResumeError: begun with other ids or settings; the message names what differs.
        WriteError: no permission, disk full; finished shards are kept.
    """
    if not isinstance(space, str) or not space.strip():
        raise ConfigError(f"space: expected the space's name, got {space!r}.")
    if modality not in MODALITIES:
        raise unknown_name("modality", modality, MODALITIES)
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    facts: Any = {"fingerprint": fingerprint, "model": model, "revision": revision, "dtype": dtype}
    origin = Origin(space=space, modality=modality, **facts)
    walk = _tensors(blocks)
    first = next((rows for rows in walk if len(rows)), None)
    if first is None:
        raise TooFewRowsError("the rows: expected at least one row, got none.")
    width = first.shape[1]
    names, from_where = _items(blocks, ids, sources)
    size = shard_items if shard_items is not None else shard_items_for(width, dtype)
    found = survey(lambda: ((id_, str(width).encode()) for id_ in names), size, "the rows")
    with open_writer(out, origin, found, shard_items=size, width=width) as writer:
        if writer is not None:
            missing = writer.missing
            for number, rows in enumerate(_by_shard(chain([first], walk), writer)):
                if number in missing:
                    span = slice(writer.items_of(number).start, writer.items_of(number).stop)
                    items = list(zip(names[span], from_where[span], strict=True))
                    _write_shard(writer, number, rows, items, quarantine)
                    if on_progress is not None:
                        on_progress((number + 1) / writer.count)
            writer.finish()
    return Memory(out)


def shard_items_for(width: int, dtype: str) -> int:
    """Choose how many rows a shard has: large files, since rows that exist already are soon written again."""
    return max(_FEWEST, 1 << (_SHARD_BYTES // (width * DTYPES[dtype].itemsize)).bit_length() - 1)


def _tensors(blocks: Any) -> Iterator[Tensor]:
    """Walk blocks, those of an array too, as tensors on the CPU."""
    parts: Iterable[Any] = blocks
    if isinstance(blocks, np.ndarray | Tensor):
        parts = (blocks[start : start + _SLICE] for start in range(0, len(blocks), _SLICE)) if blocks.ndim else [blocks]
    elif not isinstance(blocks, Iterable) or isinstance(blocks, str | bytes):
        raise DtypeError(
            f"the rows: expected an array (n, D) or an iterable of such blocks, got {type(blocks).__name__}."
        )
    return (rows_of(part, "the rows", at_least=0).detach().cpu() for part in parts)


def _items(
    blocks: Any, ids: Sequence[str] | None, sources: Sequence[str] | None
) -> tuple[Sequence[str], Sequence[str]]:
    """Take ids and sources as lists of one length, that of the rows if they are an array."""
    count = len(blocks) if isinstance(blocks, np.ndarray | Tensor) else None
    if ids is None and count is None:
        raise ConfigError("the rows: expected the ids of all rows (ids=) beside blocks; only an array is numbered.")
    names = list(map(str, range(count or 0))) if ids is None else _strings(ids)
    from_where = names if sources is None else _strings(sources)
    expected = len(names) if count is None else count
    for kind, given in (("ids", names), ("sources", from_where)):
        if len(given) != expected:
            raise DimensionError(f"the rows: expected one of the {kind} for each of {expected} rows, got {len(given)}.")
    return names, from_where


def _strings(given: Sequence[str]) -> list[str]:
    strings: list[Any] = given.tolist() if isinstance(given, np.ndarray) else list(given)
    return [str(one) if isinstance(one, str) else one for one in strings]  # numpy has a string of its own


def _by_shard(blocks: Iterable[Tensor], writer: MemoryWriter) -> Iterator[Tensor]:
    """Cut blocks of rows into shards."""
    held: list[Tensor] = []
    count = position = number = 0
    for block in blocks:
        if held and block.shape[1] != held[0].shape[1]:
            raise DimensionError(
                f"the rows: the first are {held[0].shape[1]} wide, those after row {position} {block.shape[1]}. All rows of a "
                "memory have one width."
            )
        held.append(block)
        position += len(block)
        count += len(block)
        while number < writer.count and count >= (size := len(writer.items_of(number))):
            whole = torch.cat(held) if len(held) > 1 else held[0]
            yield whole[:size]
            held, count, number = [whole[size:]], count - size, number + 1
        if position > writer.plan.run.items:
            break
    if position != writer.plan.run.items:
        raise DimensionError(f"the rows: there are {writer.plan.run.items} ids, but {position} rows.")


def _write_shard(
    writer: MemoryWriter, number: int, given: Tensor, items: Sequence[tuple[str, str]], quarantine: bool
) -> None:
    rows, usable = unit_rows_kept(given, writer.plan.origin.dtype)
    first, lost = writer.items_of(number).start, []
    for place in (~usable).nonzero()[:, 0].tolist():
        id_, source = items[place]
        finite = torch.isfinite(given[place])
        zeros = bool(finite.all())
        fault = "all zeros: it has no direction" if zeros else f"NaN or infinity in {int((~finite).sum())} value(s)"
        if not quarantine:
            raise (ZeroRowError if zeros else NonFiniteError)(
                f"the rows: row {first + place} (id {id_!r}): {fault}. Fix it and run it again, or leave such rows to the "
                "quarantine table with quarantine=True (--quarantine)."
            )
        lost.append(Quarantined(id=id_, source=source, position=first + place, reason=fault))
    good = [item for item, is_good in zip(items, usable.tolist(), strict=True) if is_good]
    writer.write(number, rows[usable], good, lost)


def unit_rows_kept(rows: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """Scale rows `(n, D)` to unit length, and round them to the dtype of the memory.

    Those whose length is one already stay bit for bit as they were. Also gives `(n,)` which of them can be used: the others
    are not finite, or all zeros.
    """
    work = rows if rows.dtype == torch.float64 else rows.float()
    rounding = max(_ROUNDING[rows.dtype], _ROUNDING[DTYPES[dtype]])
    is_unit = (torch.linalg.vector_norm(work, dim=1) - 1).abs() <= rounding
    usable = torch.isfinite(work).all(dim=1) & (work != 0).any(dim=1)
    return torch.where(is_unit.unsqueeze(1), work, normalized(work)).to(DTYPES[dtype]), usable

"""Write rows that were embedded elsewhere into a memory: `cmcr.write_memory`."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cmcr.arrays import Array, normalized, rows_of
from cmcr.errors import (
    ConfigError,
    DimensionError,
    DtypeError,
    NonFiniteError,
    TooFewRowsError,
    WriteError,
    ZeroRowError,
    unknown_name,
)
from cmcr.memories.layout import DTYPES, Origin, Quarantined
from cmcr.memories.memories import MODALITIES
from cmcr.memories.memory import Memory
from cmcr.memories.survey import Identity, survey
from cmcr.memories.writer import MemoryWriter, open_writer

_ROUNDING = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7, torch.float32: 2.0**-20, torch.float64: 2.0**-20}
"""By how much the length of a unit row may be off after it was rounded to a dtype."""
_SHARD_BYTES = 64 * 2**20  # every shard waits for the disk five times
_FEWEST = 1024
_AT_ONCE = 4096  # rows scaled together: a processor's cache holds them
_SLICE = 16_384  # rows taken from an array together

Blocks = Iterable[Array] | Iterable[tuple[Array, Sequence[str]]] | Iterable[tuple[Array, Sequence[str], Sequence[str]]]
"""Blocks of rows; or of rows and their ids; or of rows, ids and sources."""

OnProgress = Callable[[float], None]
"""Called with the share of the work that is done, in (0, 1]."""


class _Block(NamedTuple):
    """Consecutive rows `(n, D)` with the ids and sources of their items."""

    rows: Tensor
    ids: Sequence[str]
    sources: Sequence[str]

    def part(self, start: int, stop: int | None = None) -> _Block:
        """Take some of the rows."""
        return _Block(self.rows[start:stop], self.ids[start:stop], self.sources[start:stop])


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
    on_progress: OnProgress | None = None,
) -> Memory:
    """Write rows that were embedded elsewhere into a memory on disk, or resume a run that was stopped.

        cmcr.write_memory("pictures-in-clip", rows, ids, space="clip", modality="image")

    Rows are scaled to unit length, whatever their length; a row whose length is one already, within the rounding of the
    dtype it comes in or is kept in, keeps its bits. Rows are streamed: a shard or two lie in RAM.

    Whether a run is resumed is decided by ids and their number, not by the rows themselves: to write other rows under the
    same ids, choose another folder.

    Args:
        out: folder of the memory.
        blocks: `(n, D)` floating point, numpy (a memory map too) or torch; or an iterable of such blocks of any length,
            of `(rows, ids)` or of `(rows, ids, sources)`; or a function that returns an iterator of them. Without `ids` they
            are walked twice, first for the ids; an iterator, which can be walked only once, is put into temporary files
            beside `out` first: give a function to avoid that.
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
        on_progress: called with the share of the work that is done, in (0, 1].

    Returns:
        the finished memory.

    Raises:
        TooFewRowsError: no rows.
        ConfigError: ids that occur twice or are not strings, an unknown modality or dtype.
        DimensionError: not two axes, other numbers of ids than rows, widths that differ.
        DtypeError: not floating point.
        NonFiniteError, ZeroRowError: a row that cannot be used; finished shards are kept, so fix it and run it again.
        LockedError: another run is writing there.
        ResumeError: begun with other ids or settings; the message tells what differs.
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
    listed, from_where = _listed("ids", ids, blocks), _listed("sources", sources, blocks)
    with _walk_of(blocks, Path(out)) as walk:
        first = next((block for block in _blocks(walk, listed, from_where) if len(block.rows)), None)
        if first is None:
            raise TooFewRowsError("the rows: expected at least one row, got none.")
        width = first.rows.shape[1]
        size = shard_items if shard_items is not None else shard_items_for(width, dtype)

        def identities() -> Iterator[Identity]:
            every = [listed] if listed is not None else (block.ids for block in _blocks(walk, None, from_where))
            return ((id_, str(width).encode()) for ids in every for id_ in ids)

        found = survey(identities, size, "the rows")
        with open_writer(out, origin, found, shard_items=size, width=width) as writer:
            if writer is not None:
                missing = writer.missing
                for number, shard in enumerate(_by_shard(_blocks(walk, listed, from_where), writer, width)):
                    if number in missing:
                        _write_shard(writer, number, shard, quarantine)
                        if on_progress is not None:
                            on_progress((number + 1) / writer.count)
                writer.finish()
    return Memory(out)


def shard_items_for(width: int, dtype: str) -> int:
    """Choose how many rows a shard has: large files, since rows that exist already are soon written again."""
    return max(_FEWEST, 1 << (_SHARD_BYTES // (width * DTYPES[dtype].itemsize)).bit_length() - 1)


def _listed(name: str, given: Sequence[str] | None, blocks: Any) -> list[str] | None:
    """Take ids or sources given for all rows, one for each row of an array."""
    if given is None:
        return None
    strings: list[Any] = given.tolist() if isinstance(given, np.ndarray) else list(given)
    if isinstance(blocks, np.ndarray | Tensor) and blocks.ndim and len(strings) != len(blocks):
        raise DimensionError(
            f"the rows: expected one of the {name} for each of {len(blocks)} rows, got {len(strings)}."
        )
    return [str(one) if isinstance(one, str) else one for one in strings]  # numpy has a string of its own


@contextmanager
def _walk_of(blocks: Any, out: Path) -> Iterator[Callable[[], Iterator[Any]]]:
    """Give what walks blocks, as often as it is called. Blocks that can be walked only once go to temporary files first."""
    with ExitStack() as held:
        if isinstance(blocks, np.ndarray | Tensor):
            array = blocks if blocks.ndim else blocks[None]
            yield lambda: (array[start : start + _SLICE] for start in range(0, len(array), _SLICE))
        elif isinstance(blocks, Iterator):
            yield _spooled(blocks, out.absolute(), held)
        elif callable(blocks):
            yield blocks
        elif isinstance(blocks, Iterable) and not isinstance(blocks, str | bytes):
            yield lambda: iter(blocks)
        else:
            given = type(blocks).__name__
            raise DtypeError(
                f"the rows: expected an array (n, D), an iterable of such blocks or of (rows, ids), got {given}."
            )


def _spooled(blocks: Iterator[Any], out: Path, held: ExitStack) -> Callable[[], Iterator[Any]]:
    kept = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent)))
        for number, given in enumerate(blocks):
            rows, *names = _parts(given)
            save_file({"rows": rows.contiguous()}, folder / f"{number}.safetensors")
            kept.append((folder / f"{number}.safetensors", names))
    except (OSError, SafetensorError) as error:
        code, reason = getattr(error, "errno", None) or errno.EIO, getattr(error, "strerror", None) or str(error)
        raise WriteError(code, f"could not write ({reason})", str(out.parent)) from error
    return lambda: ((load_file(path)["rows"], *names) for path, names in kept)


def _blocks(
    walk: Callable[[], Iterator[Any]], ids: Sequence[str] | None, sources: Sequence[str] | None
) -> Iterator[_Block]:
    """Give every block its ids and sources: those given for all rows, its own, or numbers."""
    position, with_ids = 0, None
    for given in walk():
        rows, own_ids, own_sources = _parts(given)
        if with_ids not in (None, own_ids is not None):
            raise ConfigError(f"the rows: expected ids with all blocks or with none, not from row {position} on.")
        with_ids = own_ids is not None
        if with_ids and ids is not None:
            raise ConfigError("the rows: expected ids either for all rows (ids=) or with the blocks, got both.")
        span = range(position, position + len(rows))
        position = span.stop
        names = own_ids or ([str(row) for row in span] if ids is None else ids[span.start : span.stop])
        from_where = own_sources or (names if sources is None else sources[span.start : span.stop])
        if not len(rows) == len(names) == len(from_where):
            raise DimensionError(
                f"the rows: {len(rows)} rows and {len(names)} ids or sources in a block, up to row {position}."
            )
        yield _Block(rows, names, from_where)


def _parts(given: Any) -> tuple[Tensor, list[str] | None, list[str] | None]:
    """Take a block apart: its rows, its ids and its sources if it has any."""
    parts = given if isinstance(given, tuple) else (given,)
    rows, ids, sources = (*parts, None, None)[:3]
    return (
        rows_of(rows, "the rows", at_least=0).detach().cpu(),
        _listed("ids", ids, rows),
        _listed("sources", sources, rows),
    )


def _by_shard(blocks: Iterator[_Block], writer: MemoryWriter, width: int) -> Iterator[_Block]:
    """Cut blocks of rows into shards."""
    held: list[_Block] = []
    count = position = number = 0
    for block in blocks:
        if block.rows.shape[1] != width:
            raise DimensionError(
                f"the rows: the first are {width} wide, those after row {position} {block.rows.shape[1]}. All rows of a memory "
                "have one width."
            )
        held.append(block)
        position += len(block.rows)
        count += len(block.rows)
        while number < writer.count and count >= len(writer.items_of(number)):
            whole, size = _joined(held), len(writer.items_of(number))
            yield whole.part(0, size)
            held, count, number = [whole.part(size)], count - size, number + 1
    if count or number < writer.count:
        raise DimensionError(f"the rows: there are {writer.plan.run.items} ids, but {position} rows.")


def _joined(blocks: Sequence[_Block]) -> _Block:
    if len(blocks) == 1:
        return blocks[0]
    rows = torch.cat([block.rows for block in blocks])
    return _Block(
        rows, [id_ for one in blocks for id_ in one.ids], [source for one in blocks for source in one.sources]
    )


def _write_shard(writer: MemoryWriter, number: int, shard: _Block, quarantine: bool) -> None:
    rows, usable = unit_rows_kept(shard.rows, writer.plan.origin.dtype)
    first, good, lost = writer.items_of(number).start, usable.tolist(), []
    for position in (~usable).nonzero()[:, 0].tolist():
        finite = torch.isfinite(shard.rows[position])
        zeros = bool(finite.all())
        fault = "all zeros: it has no direction" if zeros else f"NaN or infinity in {int((~finite).sum())} value(s)"
        if not quarantine:
            raise (ZeroRowError if zeros else NonFiniteError)(
                f"the rows: row {first + position} (id {shard.ids[position]!r}): {fault}. Fix it and run it again, or "
                "leave such rows to the quarantine table with quarantine=True (--quarantine)."
            )
        id_, source = shard.ids[position], shard.sources[position]
        lost.append(Quarantined(id=id_, source=source, position=first + position, reason=fault))
    items = [item for item, is_good in zip(zip(shard.ids, shard.sources, strict=True), good, strict=True) if is_good]
    writer.write(number, rows[usable] if lost else rows, items, lost)


def unit_rows_kept(rows: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    """Scale rows to unit length and round them to the dtype in which they are kept.

    Args:
        rows: `(n, D)` floating point, on the CPU.
        dtype: of the memory.

    Returns:
        `(n, D)` rows, bit for bit as they were where their length is one already; and `(n,)` which of them can be used:
        the others are not finite, or all zeros.
    """
    parts = [_unit_rows_kept(part, dtype) for part in rows.split(_AT_ONCE)]
    return torch.cat([kept for kept, _ in parts]), torch.cat([usable for _, usable in parts])


def _unit_rows_kept(rows: Tensor, dtype: str) -> tuple[Tensor, Tensor]:
    work = rows if rows.dtype == torch.float64 else rows.float()
    rounding = max(_ROUNDING[rows.dtype], _ROUNDING[DTYPES[dtype]])
    is_unit = (torch.linalg.vector_norm(work, dim=1) - 1).abs() <= rounding
    if is_unit.all():  # so that none is NaN, infinite or zero
        return work.to(DTYPES[dtype]), is_unit
    usable = torch.isfinite(work).all(dim=1) & (work != 0).any(dim=1)
    return torch.where(is_unit.unsqueeze(1), work, normalized(work)).to(DTYPES[dtype]), usable

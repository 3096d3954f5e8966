"""Write rows that were embedded elsewhere into a memory: `cmcr.write_memory`."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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

Blocks = Iterable[Array] | Iterable[tuple[Array, Sequence[str]]]
"""Blocks of rows; or of rows and their ids."""

OnProgress = Callable[[float], None]
"""Called with the share of the work that is done, in (0, 1]."""


@dataclass(frozen=True)
class Block:
    """Consecutive rows `(n, D)`, floating point, with the ids and sources of their items."""

    rows: Tensor
    ids: Sequence[str]
    sources: Sequence[str]

    def __getitem__(self, part: slice) -> Block:
        return Block(self.rows[part], self.ids[part], self.sources[part])


@dataclass(frozen=True)
class Rows:
    """Rows that exist already, which never lie in memory as a whole.

    Attributes:
        description: what they are, for messages.
        ids: gives all ids in their order, some at a time, as often as it is called.
        blocks: gives all rows in their order, about so many at a time as it is called with, as often as it is called.
    """

    description: str
    ids: Callable[[], Iterable[Sequence[str]]]
    blocks: Callable[[int], Iterable[Block]]


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
    """Write rows that were embedded elsewhere into a memory on disk, or resume a run that was stopped.

        cmcr.write_memory("pictures-in-clip", rows, ids, space="clip", modality="image")

    Rows are scaled to unit length, whatever their length; a row whose length is one already, within the rounding of the
    dtype it comes in or is kept in, keeps its bits. Rows are streamed: a shard or two lie in RAM.

    Whether a run is resumed is decided by ids and their number, not by the rows themselves: to write other rows under the
    same ids, choose another folder.

    Args:
        out: folder of the memory.
        blocks: `(n, D)` floating point, numpy (a memory map too) or torch; or an iterable of such blocks of any length,
            or of `(rows, ids)`. An iterable of pairs is walked twice, first for the ids; an iterator, which can be walked
            only once, is put into temporary files beside `out` first: give a function that returns a new iterator to
            avoid that.
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
        ConfigError: ids that occur twice or are not strings, an unknown modality or dtype.
        DimensionError: not two axes, other numbers of ids than rows, widths that differ.
        DtypeError: not floating point.
        NonFiniteError, ZeroRowError: a row that cannot be used; finished shards are kept, so fix it and run it again.
        LockedError: another run is writing there.
        ResumeError: begun with other ids or settings; the message tells what differs.
        WriteError: no permission, disk full; finished shards are kept.
    """
    origin = checked_origin(space, modality, fingerprint, model, revision, dtype)
    write = partial(write_rows, out, origin=origin, shard_items=shard_items, quarantine=quarantine)
    if isinstance(blocks, np.ndarray | Tensor):
        return write(array_rows("the rows", blocks, ids, sources))
    if isinstance(blocks, Iterator):
        with _spooled(blocks, Path(out)) as files:
            return write(_walked_rows(files, ids, sources))
    if callable(blocks):
        return write(_walked_rows(blocks, ids, sources))
    if isinstance(blocks, Iterable) and not isinstance(blocks, str | bytes):
        return write(_walked_rows(lambda: iter(blocks), ids, sources))
    raise DtypeError(
        f"the rows: expected an array (n, D), an iterable of such blocks or of (rows, ids), got {type(blocks).__name__}."
    )


def checked_origin(
    space: str, modality: str, fingerprint: str | None, model: str | None, revision: str | None, dtype: str
) -> Origin:
    """Record what made rows, after checking it.

    Raises:
        ConfigError: no name, an unknown modality or dtype.
    """
    if not isinstance(space, str) or not space.strip():
        raise ConfigError(f"space: expected the space's name, got {space!r}.")
    if modality not in MODALITIES:
        raise unknown_name("modality", modality, MODALITIES)
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    facts = {"fingerprint": fingerprint, "model": model, "revision": revision, "dtype": dtype}
    return Origin(space=space, modality=modality, **facts)  # type: ignore[arg-type]  # pydantic checks it


def write_rows(
    out: str | Path,
    given: Rows,
    *,
    origin: Origin,
    shard_items: int | None = None,
    quarantine: bool = False,
    on_progress: OnProgress | None = None,
) -> Memory:
    """Write rows, scaled to unit length, into a memory; as `write_memory`."""
    first = next((block for block in given.blocks(1) if len(block.rows)), None)
    if first is None:
        raise TooFewRowsError(f"{given.description}: expected at least one row, got none.")
    width = first.rows.shape[1]
    size = shard_items if shard_items is not None else shard_items_for(width, origin.dtype)
    found = survey(lambda: _identities(given), size, given.description)
    with open_writer(out, origin, found, shard_items=size, width=width) as writer:
        if writer is not None:
            missing = writer.missing
            for number, shard in enumerate(_by_shard(given, writer, width)):
                if number in missing:
                    _write_shard(writer, number, shard, given.description, quarantine)
                    if on_progress:
                        on_progress((number + 1) / writer.count)
            writer.finish()
    return Memory(out)


def shard_items_for(width: int, dtype: str) -> int:
    """Choose how many rows a shard has: large files, since rows that exist already are soon written again."""
    return max(_FEWEST, 1 << (_SHARD_BYTES // (width * DTYPES[dtype].itemsize)).bit_length() - 1)


def _identities(given: Rows) -> Iterator[Identity]:
    return ((id_, b"") for ids in given.ids() for id_ in ids)


def _by_shard(given: Rows, writer: MemoryWriter, width: int) -> Iterator[Block]:
    """Cut the blocks of rows into shards."""
    held: list[Block] = []
    count = position = number = 0
    for block in given.blocks(writer.plan.run.shard_items):
        if block.rows.ndim != 2 or block.rows.shape[1] != width:
            raise DimensionError(
                f"{given.description}: the first rows are {width} wide, those after row {position} have the shape "
                f"{tuple(block.rows.shape)}. All rows of a memory have one width."
            )
        held.append(block)
        position += len(block.rows)
        count += len(block.rows)
        while number < writer.count and count >= len(writer.items_of(number)):
            whole, size = _joined(held), len(writer.items_of(number))
            yield whole[:size]
            held, count, number = [whole[size:]], count - size, number + 1
    if count or number < writer.count:
        raise DimensionError(f"{given.description}: there are {writer.plan.run.items} ids, but {position} rows.")


def _joined(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    ids = [id_ for block in blocks for id_ in block.ids]
    sources = [source for block in blocks for source in block.sources]
    return Block(torch.cat([block.rows for block in blocks]), ids, sources)


def _write_shard(writer: MemoryWriter, number: int, shard: Block, description: str, quarantine: bool) -> None:
    rows, usable = unit_rows_kept(shard.rows, writer.plan.origin.dtype)
    first, good, lost = writer.items_of(number).start, usable.tolist(), []
    for position in (~usable).nonzero()[:, 0].tolist():
        finite = torch.isfinite(shard.rows[position])
        zeros = bool(finite.all())
        fault = "all zeros: it has no direction" if zeros else f"NaN or infinity in {int((~finite).sum())} value(s)"
        if not quarantine:
            raise (ZeroRowError if zeros else NonFiniteError)(
                f"{description}: row {first + position} (id {shard.ids[position]!r}): {fault}. Fix it and run it again, or "
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
    usable = torch.isfinite(work).all(dim=1) & (work != 0).any(dim=1)
    rounding = max(_ROUNDING[rows.dtype], _ROUNDING[DTYPES[dtype]])
    is_unit = (torch.linalg.vector_norm(work, dim=1) - 1).abs() <= rounding
    if not is_unit.all():
        work = torch.where(is_unit.unsqueeze(1), work, normalized(work))
    return work.to(DTYPES[dtype]), usable


def array_rows(
    description: str, array: Array, ids: Sequence[str] | None, sources: Sequence[str] | None = None, prefix: str = ""
) -> Rows:
    """Give the rows of an array, of which a memory map stays one.

    Args:
        description: for messages.
        array: `(n, D)` floating point.
        ids: of the rows; None numbers them.
        sources: of the rows; None takes the ids.
        prefix: stands before the number where rows are numbered.

    Raises:
        DimensionError, DtypeError: not rows, or other numbers of ids or sources than rows.
    """
    rows_of(array[:0] if array.ndim else array, description, at_least=0)  # of one in foreign byte order no copy is made
    count = len(array)
    listed = [f"{prefix}{row}" for row in range(count)] if ids is None else _listed(ids, "ids", description, count)
    from_where = listed if sources is None else _listed(sources, "sources", description, count)

    def blocks(size: int) -> Iterator[Block]:
        for start in range(0, count, size):
            part = slice(start, start + size)
            yield Block(rows_of(array[part], description).detach().cpu(), listed[part], from_where[part])

    return Rows(description, lambda: [listed], blocks)


def _listed(given: Sequence[str], name: str, description: str, count: int | None = None) -> list[str]:
    strings: list[Any] = given.tolist() if isinstance(given, np.ndarray) else list(given)
    if count is not None and len(strings) != count:
        raise DimensionError(f"{description}: expected one of the {name} for each of {count} rows, got {len(strings)}.")
    return [str(one) if isinstance(one, str) else one for one in strings]  # numpy has a string of its own


def _walked_rows(walk: Callable[[], Iterator[Any]], ids: Sequence[str] | None, sources: Sequence[str] | None) -> Rows:
    """Give the rows of blocks: with the ids given for all of them, their own, or numbers."""
    name = "the rows"
    listed = None if ids is None else _listed(ids, "ids", name)
    from_where = None if sources is None else _listed(sources, "sources", name)

    def blocks(size: int) -> Iterator[Block]:
        position, with_ids = 0, None
        for given in walk():
            rows, own = _parts(given, name)
            if with_ids not in (None, own is not None):
                raise ConfigError(
                    f"{name}: expected ids with all blocks or with none; that changes after row {position}."
                )
            with_ids = own is not None
            if own is not None and listed is not None:
                raise ConfigError(f"{name}: expected ids either for all rows (ids=) or with the blocks, got both.")
            span = range(position, position + len(rows))
            position = span.stop
            names = own or (listed[span.start : span.stop] if listed is not None else [str(row) for row in span])
            if len(names) < len(rows):
                raise DimensionError(f"{name}: got more rows than the {len(listed or ())} ids.")
            yield Block(rows, names, names if from_where is None else from_where[span.start : span.stop])

    return Rows(name, lambda: [listed] if listed is not None else (block.ids for block in blocks(1)), blocks)


def _parts(given: Any, name: str) -> tuple[Tensor, list[str] | None]:
    """Take a block apart: its rows, and its ids if it has any."""
    rows, ids = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    tensor = rows_of(rows, name, at_least=0).detach().cpu()
    if ids is None:
        return tensor, None
    return tensor, _listed(ids, "ids", name, len(tensor))


@contextmanager
def _spooled(blocks: Iterator[Any], beside: Path) -> Iterator[Callable[[], Iterator[Any]]]:
    """Put blocks that can be walked only once into temporary files beside a path; give what walks them again."""
    parent, kept = beside.absolute().parent, []
    with ExitStack() as held:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix=f".{beside.name}.", dir=parent))
            for number, given in enumerate(blocks):
                rows, ids = _parts(given, "the rows")
                path = Path(folder) / f"{number}.safetensors"
                save_file({"rows": rows.contiguous()}, path)
                kept.append((path, ids))
        except (OSError, SafetensorError) as error:
            code, reason = getattr(error, "errno", None) or errno.EIO, getattr(error, "strerror", None) or str(error)
            raise WriteError(code, f"could not write ({reason})", str(parent)) from error
        yield lambda: ((load_file(path)["rows"], ids) for path, ids in kept)

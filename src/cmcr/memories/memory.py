"""Embeddings on disk: rows of any number in little RAM, each with its item's id."""

from __future__ import annotations

import errno
import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmcr.arrays import check_count
from cmcr.errors import ArtefactError, ConfigError, DimensionError, IntegrityError, ReadError
from cmcr.files import parsed_manifest
from cmcr.memories.layout import (
    FORMAT,
    VERSION,
    Contents,
    Quarantined,
    Shard,
    contents_of,
    embeddings_file,
    items_file,
    items_of_lines,
    parsed_lines,
    quarantine_file,
    record,
)
from cmcr.memories.shards import MappedRows, as_float32, read_block, reading

_BLOCK_ROWS = 4096
_FEW = 256  # rows
_TABLES_KEPT = 4  # shards whose ids stay in RAM for looking rows up
_MAPS_KEPT = 128  # each holds an open file, of which some systems allow a process 256


class Memory:
    """One or several memories on disk, as one: the embeddings of one modality in one space.

        memory = cmcr.Memory("captions-in-clip")
        memory[3], memory[100:200], memory[[7, 7, 2]]      # float32 rows
        memory.ids[3]                                      # "captions.txt:4"

    Nothing is read but the manifests until rows are asked for; rows come from files that the system maps into memory, so
    a memory may be larger than RAM. A memory that is being written, or was never finished, cannot be opened. Opening
    checks manifest, sizes and shapes, not every byte: `cmcr verify` does.

    Args:
        *folders: of memories of the same space, modality, model and width, in the order in which their rows shall come.

    Attributes:
        space: the space's name.
        modality: what was embedded.
        fingerprint: of the encoders' weights and preprocessing, None if unknown.
        model: which model, None where the space has only one or nobody said.
        revision: its commit, None where there is none.
        width: width D.
        dtype: in which rows are kept: "float16", "bfloat16" or "float32".
        shape: `(n, D)`.

    Raises:
        ArtefactNotFoundError: there is no such folder.
        FormatError: not a memory, of another version, or not finished.
        IntegrityError: a file is missing or not as long as it was.
        ReadError: the system refuses to read it.
        ConfigError, DimensionError: memories that do not belong together.
    """

    def __init__(self, *folders: str | Path) -> None:
        if not folders:
            raise ConfigError("expected the folder of a memory.")
        for folder in folders:
            if not isinstance(folder, str | os.PathLike):
                raise ConfigError(f"expected the folder of a memory, got {type(folder).__name__}.")
        self.folders = tuple(Path(folder) for folder in folders)
        self.contents = tuple(contents_in(folder) for folder in self.folders)
        _check_alike(self.folders, self.contents)
        origin = self.contents[0].origin
        self.space, self.modality = origin.space, origin.modality
        self.fingerprint, self.model, self.revision = origin.fingerprint, origin.model, origin.revision
        self.dtype = origin.dtype
        self._shards = [
            (folder, shard, contents.origin.dtype)
            for folder, contents in zip(self.folders, self.contents, strict=True)
            for shard in contents.shards
        ]
        self._ends = list(accumulate(shard.rows for _, shard, _ in self._shards))
        self.width = self.contents[0].width
        self.shape = (self._ends[-1], self.width)
        for folder, shard, _ in self._shards:
            _check_sizes(folder, shard)
        self._one_dtype = len({dtype for _, _, dtype in self._shards}) == 1
        self._mapped = lru_cache(maxsize=_MAPS_KEPT)(self._map)
        self._table = lru_cache(maxsize=_TABLES_KEPT)(self._read_table)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        where = ", ".join(str(folder) for folder in self.folders)
        return f"Memory({where}: {self.modality} of {self.space!r}, {len(self)} x {self.width} {self.dtype})"

    def __getitem__(self, rows: int | slice | ArrayLike) -> NDArray[np.float32]:
        """Read rows by position: one `(D,)`, or several `(n, D)` by a slice, a list of positions or a mask; float32.

        Raises:
            IndexError: a position that is not there, or something that is none.
        """
        if isinstance(
            rows, bool | np.bool_ | tuple
        ):  # True is no 1; memory[3, 5] is an element of an array, not two rows
            raise IndexError(f"expected positions of rows, got a {type(rows).__name__.strip('_')}.")
        if isinstance(rows, slice):
            return self._gather(np.arange(len(self))[rows])
        if isinstance(rows, int | np.integer):
            return self._row(int(rows))
        positions = np.asarray(rows)
        if positions.dtype == bool:
            if positions.shape != (len(self),):
                raise IndexError(f"a mask must be of shape ({len(self)},), got {positions.shape}.")
            positions = positions.nonzero()[0]
        if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
            raise IndexError(f"expected positions of rows, got {positions.dtype} {positions.shape}.")
        return self._gather(positions)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("rows on disk cannot become an array without a copy.")
        rows = np.empty(self.shape, dtype=np.float32)
        start = 0
        for block in self.blocks():
            rows[start : start + len(block)] = block
            start += len(block)
        return rows if dtype is None else rows.astype(dtype)

    def blocks(self, rows: int = _BLOCK_ROWS) -> Iterator[NDArray[np.float32]]:
        """Read all rows in their order, in blocks of at most `rows`: `(n, D)` float32 each.

        Files are read, not mapped, so that RAM stays at one block whatever the size of the memory. Blocks end where shards
        do.

        Raises:
            ConfigError: `rows` is no whole number of at least 1.
        """
        check_count("rows", rows)
        for number, (folder, shard, dtype) in enumerate(self._shards):
            path = folder / embeddings_file(shard.name)
            mapped = self._mapped(number)
            for start in range(0, shard.rows, rows):
                count = min(rows, shard.rows - start)
                kept = read_block(path, mapped.offset, mapped.kind, self.width, start, count)
                yield as_float32(kept, dtype)

    def digest(self) -> str:
        """Hash which rows these are and in which order, from the manifests alone: 64 hexadecimal digits.

        The same rows in shards of other sizes have another digest; where the folders are does not matter.
        """
        # The manifest, sealed by a hash of its own, holds the hash of each shard's file as it was written: its rows, their
        # shape and dtype. No other rows can have the same. That a file has changed since is for `cmcr verify` to find.
        hashes = [shard.sha256[embeddings_file(shard.name)] for _, shard, _ in self._shards if shard.rows]
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    @cached_property
    def ids(self) -> list[str]:
        """The ids of all rows, in RAM from the first use on (some 100 bytes a row)."""
        return [id_ for number in range(len(self._shards)) for id_, _ in self._read_table(number)]

    def item(self, row: int) -> tuple[str, str]:
        """Look up the id and the source of one row, reading the table of its shard only."""
        row = _within(row, len(self))
        number = bisect_right(self._ends, row)
        return self._table(number)[row - self._start(number)]

    def quarantine(self) -> Iterator[Quarantined]:
        """Read which items have no row, and why."""
        for folder, shard, _ in self._shards:
            yield from quarantine_in(folder, shard)

    def _start(self, number: int) -> int:
        return self._ends[number - 1] if number else 0

    def _row(self, row: int) -> NDArray[np.float32]:
        row = _within(row, len(self))
        number = bisect_right(self._ends, row)
        return as_float32(self._mapped(number).rows[row - self._start(number)], self._shards[number][2])

    def _gather(self, given: NDArray[Any]) -> NDArray[np.float32]:
        wrong = (given < -len(self)) | (given >= len(self))
        if wrong.any():
            raise IndexError(f"row {given[wrong][0]} is not there: the memory has {len(self)} rows.")
        positions = given.astype(np.int64)
        positions = np.where(positions < 0, positions + len(self), positions)
        if len(positions) <= _FEW and self._one_dtype:  # sorting them by shard would take longer than reading them
            return self._one_by_one(positions.tolist())
        result = np.empty((len(positions), self.width), dtype=np.float32)
        numbers = np.searchsorted(self._ends, positions, side="right")
        order = np.argsort(numbers, kind="stable")
        edges = np.flatnonzero(np.diff(numbers[order])) + 1
        for part in np.split(order, edges) if len(order) else ():
            number = int(numbers[part[0]])
            kept = self._mapped(number).rows[positions[part] - self._start(number)]
            result[part] = as_float32(kept, self._shards[number][2])
        return result

    def _one_by_one(self, positions: list[int]) -> NDArray[np.float32]:
        """Read rows one after another."""
        starts, ends, mapped = [0, *self._ends], self._ends, self._mapped
        kept = np.empty((len(positions), self.width), dtype=mapped(0).kind)
        for place, row in enumerate(positions):
            number = bisect_right(ends, row)
            kept[place] = mapped(number).rows[row - starts[number]]
        return as_float32(kept, self.dtype)

    def _map(self, number: int) -> MappedRows:
        folder, shard, dtype = self._shards[number]
        return MappedRows(folder / embeddings_file(shard.name), shard, dtype)

    def _read_table(self, number: int) -> list[tuple[str, str]]:
        folder, shard, _ = self._shards[number]
        return items_in(folder, shard)


def items_in(folder: Path, shard: Shard) -> list[tuple[str, str]]:
    """Read the id and the source of each row of a shard.

    Raises:
        IntegrityError: there are not as many as rows, or they cannot be made out.
        ReadError: the system refuses to read them.
    """
    path = folder / items_file(shard.name)
    with _whole(path):
        items = items_of_lines(_content(path))
    if len(items) != shard.rows:
        raise IntegrityError(f"{path}: expected {shard.rows} lines, got {len(items)}. Restore it from a copy.")
    return items


def quarantine_in(folder: Path, shard: Shard) -> list[Quarantined]:
    """Read which items of a shard have no row, and why.

    Raises:
        IntegrityError: they cannot be made out.
        ReadError: the system refuses to read them.
    """
    if not shard.quarantined:
        return []
    path = folder / quarantine_file(shard.name)
    with _whole(path):
        return [record(Quarantined, line) for line in parsed_lines(_content(path))]


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Say that lines are damaged where they are no text, no JSON, or lack what they should have."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{path}: its lines are damaged ({error}). Restore the memory from a copy.") from error


def contents_in(folder: Path) -> Contents:
    """Read the manifest of a memory.

    Raises:
        ArtefactNotFoundError, FormatError, IntegrityError: as `cmcr.files.read_manifest`.
        ReadError: the system refuses to read it.
    """
    try:
        return contents_of(parsed_manifest(folder, FORMAT, VERSION), str(folder))
    except ArtefactError:  # some are OSErrors too: already said
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ReadError(error.errno or errno.EIO, f"could not read ({reason})", str(folder)) from error


def _check_alike(folders: Sequence[Path], contents: Sequence[Contents]) -> None:
    first = contents[0].origin
    for folder, other in zip(folders[1:], contents[1:], strict=True):
        for name in ("space", "modality", "fingerprint", "model", "revision"):
            was, now = getattr(first, name), getattr(other.origin, name)
            if was != now:
                raise ConfigError(f"{folder} has the {name} {now!r}, {folders[0]} {was!r}: they are not of one kind.")
        if other.width != contents[0].width:
            raise DimensionError(f"{folder} is {other.width} wide, {folders[0]} {contents[0].width}.")


def _check_sizes(folder: Path, shard: Shard) -> None:
    for file, size in shard.bytes.items():
        with reading(folder / file):
            found = (folder / file).stat().st_size
        if found != size:
            raise IntegrityError(f"{folder / file}: {found} bytes, expected {size}. Restore the memory from a copy.")


def _within(row: int, count: int) -> int:
    if not -count <= row < count:
        raise IndexError(f"row {row} is not there: the memory has {count} rows.")
    return row + count if row < 0 else row


def _content(path: Path) -> bytes:
    with reading(path):
        return path.read_bytes()

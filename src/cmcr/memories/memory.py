"""Embeddings on disk: rows of any number in little RAM, each with its item's id."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cmcr.arrays import check_count
from cmcr.data.items.files import ENDINGS_OF, ending_of
from cmcr.errors import ConfigError, DimensionError, IntegrityError, differences
from cmcr.memories.layout import (
    EMBEDDINGS,
    Contents,
    Quarantined,
    Run,
    contents_in,
    items_in,
    quarantine_in,
    reading,
)
from cmcr.memories.shards import as_float32, mapped_rows
from cmcr.memories.verification import check_files

if TYPE_CHECKING:
    from cmcr.memories.memories import Memories

_BLOCK_ROWS = 4096
_MAPS_KEPT = 128


class Memory:
    """One or several memories on disk, as one: the embeddings of one modality in one space.

        memory = cmcr.Memory("captions-in-clip")
        memory[3], memory[100:200], memory[[7, 7, 2]]      # float32 rows
        memory.ids[3]                                      # "captions.txt:4"

    Nothing is read but the manifests until rows are asked for; rows come from files that the system maps into memory, so
    a memory may be larger than RAM. A memory that is being written, or was never finished, cannot be opened. Opening
    checks manifest, sizes and shapes, not every byte: `cmcr verify` does. Sizes are checked again before each read, since
    the system kills a process that reads mapped rows beyond the end of a file that was cut.

    Args:
        *folders: of memories of the same space, modality, model and width, in the order in which their rows come.
        shards: of each folder, how many shards to take, as they were before more was appended; None takes all.

    Attributes:
        space: the space's name.
        modality: what was embedded.
        fingerprint: of the encoders' weights and preprocessing, None if unknown.
        model: which model, None where the space has only one or it is not known.
        revision: its commit, None where there is none.
        width: width D.
        dtype: in which rows are kept: "float16", "bfloat16" or "float32".
        shape: `(n, D)`.
        as_written: whether rows are used as they are, not scaled to length one again (consistent rows, which need not be).
        references: `(i, D)` rows of a few inputs made by code, by which the encoder is known again; None if unknown.
        versions: of the libraries with which they were made.

    Raises:
        ArtefactNotFoundError: there is no such folder.
        FormatError: not a memory, of another version, or not finished.
        IntegrityError: a file is missing or not as long as it was.
        ReadError: the system refuses to read it.
        ConfigError, DimensionError: memories that do not belong together.
    """

    def __init__(self, *folders: str | Path, shards: Sequence[int] | None = None) -> None:
        if not folders:
            raise ConfigError("expected the folder of a memory.")
        for folder in folders:
            if not isinstance(folder, str | os.PathLike):
                raise ConfigError(f"expected the folder of a memory, got {type(folder).__name__}.")
        self.folders = tuple(Path(folder) for folder in folders)
        self.contents = tuple(contents_in(folder) for folder in self.folders)
        if shards is not None:
            cut = zip(self.contents, shards, strict=True)
            self.contents = tuple(each.model_copy(update={"shards": each.shards[:count]}) for each, count in cut)
        _check_alike(self.folders, self.contents)
        origin = self.contents[0].origin
        self.space, self.modality = origin.space, origin.modality
        self.fingerprint, self.model, self.revision = origin.fingerprint, origin.model, origin.revision
        self.dtype: str = origin.dtype
        self.as_written = False
        self._verified = False
        self._shards = [
            (folder, shard, contents.origin.dtype)
            for folder, contents in zip(self.folders, self.contents, strict=True)
            for shard in contents.shards
        ]
        self._ends = list(accumulate(shard.rows for _, shard, _ in self._shards))
        self.width = self.contents[0].width
        self.shape = (self._ends[-1], self.width)
        rows = self.contents[0].references
        self.references = torch.tensor(rows) if rows else None
        self.versions = self.contents[0].runs[0].versions
        for folder, shard, _ in self._shards:
            for file, size in shard.bytes.items():
                _check_size(str(folder / file), size)
        # As text: a Path would take longer than the read of a row.
        self._files = [
            (str(folder / (shard.name + EMBEDDINGS)), shard.bytes[shard.name + EMBEDDINGS])
            for folder, shard, _ in self._shards
        ]
        self._mapped = lru_cache(maxsize=_MAPS_KEPT)(self._map)

    def __reduce__(self) -> Any:
        return partial(Memory, shards=[len(each.shards) for each in self.contents]), self.folders

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        where = ", ".join(str(folder) for folder in self.folders)
        return f"Memory({where}: {self.modality} of {self.space!r}, {len(self)} x {self.width} {self.dtype})"

    def __getitem__(self, rows: int | slice | ArrayLike) -> NDArray[np.float32]:
        """Read rows by position: one `(D,)`, or several `(n, D)` by a slice, a list of positions or a mask; float32.

        Raises:
            IndexError: a position that is not there, or something that is not a position.
        """
        positions = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        if positions.dtype == bool and positions.shape == (len(self),):
            positions = positions.nonzero()[0]
        # memory[3, 5] is one element of an array; True is not 1
        if isinstance(rows, tuple) or positions.ndim > 1 or (positions.size and positions.dtype.kind not in "iu"):
            raise IndexError(
                f"expected positions of rows, or a mask of shape ({len(self)},), got {positions.dtype} {positions.shape}."
            )
        wrong = (positions < -len(self)) | (positions >= len(self))
        if wrong.any():
            raise IndexError(f"row {positions[wrong][0]} is not there: the memory has {len(self)} rows.")
        found = self._gather(positions.astype(np.int64).reshape(-1))
        return found if positions.ndim else found[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("rows on disk cannot become an array without a copy.")
        return self[:] if dtype is None else self[:].astype(dtype)

    def blocks(self, rows: int = _BLOCK_ROWS) -> Iterator[NDArray[np.float32]]:
        """Read all rows in their order, in blocks of at most `rows`: `(n, D)` float32 each.

        One shard is mapped at a time, so that the process holds no more than that whatever the size of the memory. Blocks
        end where shards do.

        Raises:
            ConfigError: `rows` is not a whole number of at least 1.
        """
        check_count("rows", rows)
        for number in range(len(self._shards)):
            for part in self._map(number).split(rows):
                if len(part):
                    self.still_whole(number)
                    yield as_float32(part)

    def mapped(self) -> Iterator[Tensor]:
        """Map the shards into memory, in their order: `(n, D)` each in the memory's dtype, read as they are used.

        For callers that read all rows again and again, who keep them: no file stays open, but each needs some of the
        addresses and none of the RAM of the process. Call `still_whole` before each walk of them.
        """
        return (self._map(number) for number, (_, shard, _) in enumerate(self._shards) if shard.rows)

    def still_whole(self, *numbers: int) -> None:
        """Make sure that the rows of shards, of all if none is named, are on disk as long as they were.

        Raises:
            IntegrityError: a file was cut or removed since the memory was opened.
        """
        for number in numbers or range(len(self._shards)):
            _check_size(*self._files[number])

    def digest(self, rows: int | None = None) -> str:
        """Hash which rows these are and in which order, from the manifests alone: 64 hexadecimal digits.

        The same rows in shards of other sizes have another digest; where the folders are does not matter. Of the shards
        within the first `rows` alone it is the digest from before more was appended.
        """
        # The manifest holds the hash of each shard's file as it was written, and is itself hashed. A file that has changed
        # since is for `cmcr verify` to find.
        within = [shard for (_, shard, _), end in zip(self._shards, self._ends, strict=True) if end <= (rows or end)]
        hashes = [shard.sha256[shard.name + EMBEDDINGS] for shard in within if shard.rows]
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    @cached_property
    def ids(self) -> list[str]:
        """The ids of all rows, in RAM from the first use on (some 100 bytes a row)."""
        return [id_ for id_, _ in self.items()]

    def paths(self) -> Iterator[Path | None]:
        """Give the file of each row's item, absolute: its id, from the folder that was embedded.

        None where that is no file of the modality, or no longer there: lines and cells, members of tar files, rows that came
        from elsewhere with ids that are no paths.
        """
        for folder, contents in zip(self.folders, self.contents, strict=True):
            for shard in contents.shards:
                root = root_of(folder, contents.runs[shard.run])
                yield from (_file_of(root, id_, self.modality) for id_, _ in items_in(folder, shard))

    def items(self) -> Iterator[tuple[str, str]]:
        """Give the id and the source of each row, in their order."""
        for number in range(len(self._shards)):
            yield from self._items_of(number)

    def quarantine(self) -> list[Quarantined]:
        """Read which items have no row, and why: of an item that was tried again, the last time."""
        # By folder: several memories as one may hold items of one id.
        found = {(folder, item.id): item for folder, shard, _ in self._shards for item in quarantine_in(folder, shard)}
        if found and any(len(contents.runs) > 1 for contents in self.contents):
            for number, (folder, _, _) in enumerate(self._shards):
                for id_, _ in self._items_of(number):
                    found.pop((folder, id_), None)
        return list(found.values())

    def verify(self) -> None:
        """Hash every file and look at every value, once: what `cmcr verify` does, of the shards that are used here.

        Raises:
            IntegrityError: names every damaged file.
            ReadError: the system refuses to read it.
        """
        if not self._verified:
            for folder, contents in zip(self.folders, self.contents, strict=True):
                check_files(folder, contents)
            self._verified = True

    @staticmethod
    def by_space(memories: Sequence[Memory], overlap: Any = None) -> list[Memories]:
        """Group memories into spaces, and match their overlaps by ids; see `cmcr.memories.memories.by_space`."""
        from cmcr.memories.memories import by_space

        return by_space(memories, overlap)

    def _gather(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        positions = np.where(positions < 0, positions + len(self), positions)
        result = np.empty((len(positions), self.width), dtype=np.float32)
        numbers = np.searchsorted(self._ends, positions, side="right")
        order = np.argsort(numbers, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            if len(part):
                number = int(numbers[part[0]])
                self.still_whole(number)
                first = self._ends[number] - self._shards[number][1].rows
                result[part] = as_float32(self._mapped(number)[torch.from_numpy(positions[part] - first)])
        return result

    def _map(self, number: int) -> Tensor:
        return mapped_rows(*self._shards[number])

    def _items_of(self, number: int) -> list[tuple[str, str]]:
        folder, shard, _ = self._shards[number]
        return items_in(folder, shard)


def root_of(folder: Path, run: Run) -> Path | None:
    """Find the folder that ids of a run begin from, absolute; None where it is not known."""
    return None if run.root is None else Path(os.path.abspath(folder / run.root))  # noqa: PTH100 - keeps links


def _file_of(root: Path | None, id_: str, modality: str) -> Path | None:
    """Find the file that an id names; never one of another kind, whatever a memory of somebody else says."""
    path = Path(id_) if root is None else root / id_
    if path.is_absolute() and ending_of(id_) in ENDINGS_OF[modality]:
        with suppress(OSError, ValueError):  # too long, or a NUL inside
            return path if path.is_file() else None
    return None


def _check_alike(folders: Sequence[Path], contents: Sequence[Contents]) -> None:
    kinds = [one.origin.model_dump(exclude={"dtype"}) for one in contents]
    for folder, kind, other in zip(folders, kinds, contents, strict=True):
        if differing := differences(kinds[0], kind):
            raise ConfigError(f"{folders[0]} and {folder} are not of one kind: {differing}.")
        if other.width != contents[0].width:
            raise DimensionError(f"{folder} is {other.width} wide, {folders[0]} {contents[0].width}.")


def _check_size(path: str, size: int) -> None:
    try:
        found = os.stat(path).st_size  # noqa: PTH116 - before each read
    except OSError:
        with reading(Path(path)):
            raise
    if found != size:
        said = f"{found} bytes, expected {size}: cut short or changed"
        raise IntegrityError(f"{path}: {said}. Restore the memory from a copy.")

"""Make one memory of several, and leave out what occurs twice; rows are copied bit for bit."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import ConfigError
from cmcr.memories.memory import Memory
from cmcr.memories.memory_rows import MemoryRows
from cmcr.memories.row_source import repeated
from cmcr.memories.row_writing import OnProgress, write_rows


def merge(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    deduplicate: bool = False,
    shard_items: int | None = None,
    on_progress: OnProgress | None = None,
) -> Memory:
    """Write the rows of several memories of one kind, in their order, into a new one; or go on where that was stopped.

    Items in quarantine stay there, in their places among the others; their positions count anew.

    Args:
        folders: of the memories, which stay as they are.
        out: folder of the new memory.
        deduplicate: of items of one id keep the first that has a row, or the first where none has; otherwise they are
            refused.
        shard_items: items a shard; None takes the power of two that fills some 64 MiB.
        on_progress: called with the share of the work that is done.

    Raises:
        ConfigError: no memories, of different kinds or dtypes, an id twice, or `out` is one of them.
        DimensionError: they differ in width.
        ArtefactNotFoundError, FormatError, IntegrityError, ReadError: one of them cannot be read.
        LockedError, ResumeError, WriteError: `out` cannot be written, or was begun with something else.
    """
    if isinstance(folders, str | Path):
        raise ConfigError(f"folders: expected a list of memories, got {str(folders)!r}.")
    memory = Memory(*folders)
    _check_target(memory, Path(out))
    _check_dtypes(memory)
    source = MemoryRows(memory)
    if deduplicate:
        source = MemoryRows(memory, first_of_each(source))
    return write_rows(out, source, memory.contents[0].origin, shard_items=shard_items, on_progress=on_progress)


def deduplicate(
    folder: str | Path, out: str | Path, *, shard_items: int | None = None, on_progress: OnProgress | None = None
) -> Memory:
    """Write a memory without the items whose id came before into a new one; as `merge` of one memory."""
    return merge([folder], out, deduplicate=True, shard_items=shard_items, on_progress=on_progress)


def first_of_each(source: MemoryRows) -> NDArray[np.bool_]:
    """Choose one item of each id: the first that has a row, or the first where none has.

    Nine bytes an item are held, and the ids that occur more than once.

    Returns:
        `(items,)` which are chosen.
    """
    hashes = array("q")
    for ids in source.ids():
        hashes.extend(map(hash, ids))
    suspects = repeated(np.frombuffer(hashes, dtype=np.int64))
    chosen = np.ones(len(hashes), dtype=bool)
    best: dict[str, tuple[int, bool]] = {}  # by id: position, and whether it has a row
    position = 0
    for ids, _, missing in source.items() if suspects else ():
        for place, id_ in enumerate(ids):
            if hash(id_) in suspects:
                _choose(chosen, best, id_, position + place, place not in missing)
        position += len(ids)
    return chosen


def _choose(
    chosen: NDArray[np.bool_], best: dict[str, tuple[int, bool]], id_: str, position: int, has_row: bool
) -> None:
    if id_ not in best:
        best[id_] = (position, has_row)
    elif has_row and not best[id_][1]:
        chosen[best[id_][0]] = False
        best[id_] = (position, has_row)
    else:
        chosen[position] = False


def _check_target(memory: Memory, out: Path) -> None:
    for folder in memory.folders:
        if out.resolve() == folder.resolve():
            raise ConfigError(f"{out}: is one of the memories that are read. Choose another folder for the new one.")


def _check_dtypes(memory: Memory) -> None:
    for folder, contents in zip(memory.folders, memory.contents, strict=True):
        if contents.origin.dtype != memory.dtype:
            raise ConfigError(
                f"{folder} keeps {contents.origin.dtype}, {memory.folders[0]} {memory.dtype}: rows are copied bit for bit, "
                "so all memories need one dtype. Export one and import it in the other's dtype."
            )

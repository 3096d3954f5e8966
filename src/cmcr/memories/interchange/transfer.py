"""Import and export memories: `cmcr memory import`, `cmcr memory export`."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cmcr.errors import CmcrError, ConfigError, WriteError, unknown_name
from cmcr.files import flush_folder
from cmcr.memories.interchange.clip_retrieval import ClipRetrievalRows, part_of, write_clip_retrieval
from cmcr.memories.interchange.exported import Exported
from cmcr.memories.interchange.npy import npy_rows, write_npy
from cmcr.memories.interchange.parquet import ParquetRows, write_parquet
from cmcr.memories.memory import Memory
from cmcr.memories.precomputed import checked_origin, write_unit_rows
from cmcr.memories.row_source import RowSource
from cmcr.memories.row_writing import OnProgress

LAYOUTS = ("npy", "clip-retrieval", "parquet")


def import_memory(
    path: str | Path,
    out: str | Path,
    *,
    layout: str,
    space: str,
    modality: str,
    fingerprint: str | None = None,
    model: str | None = None,
    revision: str | None = None,
    dtype: str = "float16",
    ids: str | Path | None = None,
    column: str | None = None,
    id_column: str | None = None,
    shard_items: int | None = None,
    quarantine: bool = False,
    on_progress: OnProgress | None = None,
) -> Memory:
    """Turn the files of another program into a memory, or go on with a run that was stopped; see docs/interchange.md.

    Rows are read some at a time, and scaled to unit length as `cmcr.write_memory` does.

    Args:
        path: what is imported.
        out: folder of the memory.
        layout: "npy", "clip-retrieval" or "parquet".
        space: the space's name.
        modality: what was embedded.
        fingerprint: of the encoders, None if unknown.
        model: which model, None if unknown.
        revision: its commit, None if unknown.
        dtype: in which rows are kept.
        ids: of npy: the file of ids.
        column: of Parquet: the column of embeddings.
        id_column: of Parquet: the column of ids.
        shard_items: items a shard; None takes the power of two that fills some 64 MiB.
        quarantine: put rows that are not finite or all zeros into quarantine instead of refusing them.
        on_progress: called with the share of the work that is done.

    Raises:
        ConfigError: an unknown layout, or an option that it does not have.
        ArtefactNotFoundError, ReadError, FormatError: files that are not there or not what they should be.
        MissingDependencyError: the layout needs pyarrow.
        Others as `cmcr.write_memory`.
    """
    origin = checked_origin(space, modality, fingerprint, model, revision, dtype)
    source = _source(Path(path), layout, modality, ids, column, id_column)
    return write_unit_rows(out, source, origin, shard_items=shard_items, quarantine=quarantine, on_progress=on_progress)


def export_memory(memory: str | Path | Memory, out: str | Path, *, layout: str) -> None:
    """Write a memory's rows, ids and sources as other programs read them; what is in quarantine is left out.

    Written aside, flushed and renamed: there is all of it or nothing. Rows keep their bits; bfloat16 becomes float32.

    Args:
        memory: or its folder.
        out: a folder; of Parquet a file. Nothing may be there yet.
        layout: "npy", "clip-retrieval" or "parquet".

    Raises:
        ConfigError: an unknown layout, or one that does not have the memory's modality.
        MissingDependencyError: the layout needs pyarrow.
        WriteError: something is there already, no permission, disk full.
    """
    _check_layout(layout)
    exported = Exported(memory if isinstance(memory, Memory) else Memory(memory))
    if layout == "clip-retrieval":
        part_of(exported.modality)
    with _aside(Path(out)) as aside:
        if layout == "parquet":
            write_parquet(exported, aside)
            return
        aside.mkdir()
        if layout == "npy":
            write_npy(exported, aside)
        else:
            write_clip_retrieval(exported, aside)


def _source(
    path: Path, layout: str, modality: str, ids: str | Path | None, column: str | None, id_column: str | None
) -> RowSource:
    _check_layout(layout)
    if ids is not None and layout != "npy":
        raise ConfigError(f"--ids belongs to npy; {layout} brings its own.")
    if (column is not None or id_column is not None) and layout != "parquet":
        raise ConfigError(f"--column and --id-column belong to parquet, not to {layout}.")
    if layout == "npy":
        return npy_rows(path, Path(ids) if ids is not None else None)
    if layout == "parquet":
        return ParquetRows(path, column=column, id_column=id_column)
    return ClipRetrievalRows(path, modality)


def _check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """Give a path beside the target, and rename it into place once what was written there is on the disk."""
    aside = out.parent / f".{out.name}.{uuid.uuid4().hex}.part"
    try:
        if os.path.lexists(out):
            raise FileExistsError(errno.EEXIST, "something is there already; choose another path")
        out.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        for path in (*aside.rglob("*"), aside):
            flush_folder(path)
        aside.rename(out)
        flush_folder(out.parent)
    except CmcrError:
        raise  # what could not be read is no fault of the target
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(
            error.errno or errno.EIO, f"could not write ({reason}); nothing half-written was left", str(out)
        ) from error
    finally:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)

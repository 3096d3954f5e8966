"""Memories from and to the files of other programs: numpy arrays, the folders of clip-retrieval, Parquet.

`cmcr memory import` and `cmcr memory export`; see docs/memories.md. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmcr.errors import (
    ArtefactNotFoundError,
    CmcrError,
    ConfigError,
    DimensionError,
    DtypeError,
    FormatError,
    ReadError,
    WriteError,
    missing_dependency,
    unknown_name,
)
from cmcr.files import flush_folder
from cmcr.memories.layout import item_lines, parsed_lines
from cmcr.memories.memory import Memory
from cmcr.memories.precomputed import write_memory

LAYOUTS = ("npy", "clip-retrieval", "parquet")
_PARTS = {"image": "img_emb", "text": "text_emb"}  # of clip-retrieval
_EMBEDDINGS, _ITEMS = "embeddings.npy", "items.jsonl"
_ROWS = 16_384

_Given = tuple[Any, Sequence[str] | None, Sequence[str] | None]
"""What `cmcr.write_memory` takes: an array or blocks, ids, sources."""


def import_memory(
    path: str | Path,
    out: str | Path,
    *,
    layout: str,
    modality: str,
    ids: str | Path | None = None,
    column: str | None = None,
    id_column: str | None = None,
    **options: Any,
) -> Memory:
    """Turn the files of another program into a memory, or resume a run that was stopped; see docs/interchange.md.

    Args:
        path: what is imported.
        out: folder of the memory.
        layout: "npy", "clip-retrieval" or "parquet".
        modality: what was embedded.
        ids: of npy: the file of ids.
        column: of Parquet: the column of embeddings.
        id_column: of Parquet: the column of ids.
        **options: of `cmcr.write_memory`, such as `space`, which scales the rows and writes them.

    Raises:
        ConfigError: an unknown layout, or an option that it does not have.
        ArtefactNotFoundError, ReadError, FormatError: files that are not there or not what they should be.
        MissingDependencyError: the layout needs pyarrow.
        Others as `cmcr.write_memory`.
    """
    _check_layout(layout)
    if ids is not None and layout != "npy":
        raise ConfigError(f"--ids belongs to npy; {layout} brings its own.")
    if (column is not None or id_column is not None) and layout != "parquet":
        raise ConfigError(f"--column and --id-column belong to parquet, not to {layout}.")
    if layout == "npy":
        blocks, listed, sources = _npy_rows(Path(path), None if ids is None else Path(ids))
    elif layout == "parquet":
        blocks, listed, sources = _parquet_rows(Path(path), column, id_column)
    else:
        blocks, listed, sources = _clip_retrieval_rows(Path(path), modality)
    return write_memory(out, blocks, listed, modality=modality, sources=sources, **options)


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
    source = memory if isinstance(memory, Memory) else Memory(memory)
    if layout == "clip-retrieval":
        _part_of(source.modality)
    write: dict[str, Callable[[Memory, Path], None]] = {
        "npy": _write_npy,
        "clip-retrieval": _write_clip_retrieval,
        "parquet": _write_parquet,
    }
    with _aside(Path(out)) as aside:
        write[layout](source, aside)


def _check_layout(layout: str) -> None:
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)


def _kept(memory: Memory) -> Iterator[tuple[Any, list[str], list[str]]]:
    """Give rows, ids and sources, a shard at a time. Numpy has no bfloat16: float32 holds each of its values."""
    for rows, items in memory.kept_rows():
        array = (rows.float() if rows.dtype == torch.bfloat16 else rows).numpy()
        yield array, [id_ for id_, _ in items], [source for _, source in items]


# Numpy arrays beside a list of ids.


def _npy_rows(path: Path, ids: Path | None) -> _Given:
    if path.is_dir():
        ids = ids or (path / _ITEMS if (path / _ITEMS).is_file() else None)
        path = path / _EMBEDDINGS
    array = _mapped(path)
    if ids is None:
        return array, [f"{path.name}:{row}" for row in range(len(array) if array.ndim else 1)], None
    return array, *_read_items(ids)


def _mapped(path: Path) -> Any:
    """Map a numpy file into memory; one of Python objects, which would have to be unpickled, is refused."""
    with _reading(path, "numpy file (.npy)"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise FormatError(f"{path}: expected one array, got an archive of several.")
    return array


def _read_items(path: Path) -> tuple[Sequence[str], Sequence[str] | None]:
    """Read ids, and sources if there are any, by the ending of the file."""
    if path.suffix == ".npy":
        array = _mapped(path)
        if array.ndim != 1 or array.dtype.kind != "U":
            raise FormatError(f"{path}: expected one string a row, got {array.dtype} {array.shape}.")
        return array.tolist(), None
    with _reading(path, "list of ids"):
        content = path.read_bytes()
        if path.suffix == ".jsonl":
            lines = parsed_lines(content)
            return [line["id"] for line in lines], [line.get("source", line["id"]) for line in lines]
        if path.suffix == ".json":
            given = json.loads(content)
            if not isinstance(given, list):
                raise TypeError(f"expected a JSON list, got {type(given).__name__}")
            return given, None
        return content.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n"), None


def _write_npy(memory: Memory, folder: Path) -> None:
    folder.mkdir()
    kind = np.float16 if memory.dtype == "float16" else np.float32
    array = np.lib.format.open_memmap(folder / _EMBEDDINGS, "w+", kind, memory.shape)
    start = 0
    with (folder / _ITEMS).open("wb") as file:
        for rows, ids, sources in _kept(memory):
            array[start : start + len(rows)] = rows
            start += len(rows)
            file.write(item_lines(zip(ids, sources, strict=True)))
    array.flush()


# The folders that clip-retrieval's inference writes: img_emb/img_emb_0.npy beside metadata/metadata_0.parquet, ...


def _clip_retrieval_rows(folder: Path, modality: str) -> _Given:
    """Read the partitions by their numbers. Ids are the paths of pictures if all rows have one of their own."""
    part = _part_of(modality)
    found = {
        match[1]: path for path in (folder / part).glob("*.npy") if (match := re.fullmatch(rf"{part}_(\d+)", path.stem))
    }
    if not found:
        raise ArtefactNotFoundError(
            errno.ENOENT, f"there are no {part}_0.npy, {part}_1.npy, ... here", str(folder / part)
        )
    numbers = sorted(found, key=int)  # however many zeros stand before them
    tables = [_metadata(folder / "metadata" / f"metadata_{number}.parquet") for number in numbers]
    paths = [path for table in tables for path in table["image_path"]]
    named = None not in paths and len(set(paths)) == len(paths)

    def blocks() -> Iterator[tuple[Any, list[str], list[str] | None]]:
        for number, table in zip(numbers, tables, strict=True):
            array, count = _mapped(found[number]), len(table["image_path"])
            if len(array) != count:
                raise DimensionError(f"{found[number]}: {len(array)} rows, its metadata has {count}.")
            for start in range(0, count, _ROWS):
                part = slice(start, start + _ROWS)
                names = table["image_path"][part] if named else [f"{number}:{row}" for row in range(count)[part]]
                yield array[part], names, table["source"][part] if named and table["source"] else None

    return blocks, None, None


def _part_of(modality: str) -> str:
    if modality not in _PARTS:
        raise ConfigError(f"clip-retrieval keeps image and text, got {modality!r}. Use npy or parquet.")
    return _PARTS[modality]


def _metadata(path: Path) -> dict[str, Any]:
    """Read the paths of the pictures of a partition; None for each where there are none."""
    with _opened_table(path) as table:
        names = table.schema_arrow.names
        ours = names == ["image_path", "source"]  # elsewhere a column of that name may be anything
        columns = table.read([name for name in ("image_path",) if name in names] + ["source"] * ours).to_pydict()
        paths = columns.get("image_path", [None] * table.metadata.num_rows)
    return {"image_path": paths, "source": columns.get("source")}


def _write_clip_retrieval(memory: Memory, folder: Path) -> None:
    arrow, part = _pyarrow(), _part_of(memory.modality)
    (folder / part).mkdir(parents=True)
    (folder / "metadata").mkdir()
    digits = len(str(sum(len(contents.shards) for contents in memory.contents)))
    for number, (rows, ids, sources) in enumerate(_kept(memory)):
        name = str(number).zfill(digits)
        np.save(folder / part / f"{part}_{name}.npy", rows)
        table = arrow.table({"image_path": _strings(ids), "source": _strings(sources)})
        arrow.parquet.write_table(table, folder / "metadata" / f"metadata_{name}.parquet")


# Parquet: a column of embeddings, and columns of ids and sources.


def _parquet_rows(path: Path, column: str | None, id_column: str | None) -> _Given:
    """Read one file, or all in a folder by their names."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ArtefactNotFoundError(errno.ENOENT, "there are no *.parquet files here", str(path))
    with _opened_table(files[0]) as table:
        names = table.schema_arrow.names
        embeddings = _embedding_column(files[0], table.schema_arrow, column)
    if id_column not in (None, *names):
        raise ConfigError(f"{files[0]}: has no column {id_column!r}, its columns are {', '.join(names)}.")
    id_column = id_column or ("id" if "id" in names else None)
    wanted = list(dict.fromkeys([embeddings, *filter(None, [id_column]), *(["source"] if "source" in names else [])]))

    def blocks() -> Iterator[tuple[Any, list[str], list[str]]]:
        for file in files:
            first = 0
            with _opened_table(file) as table:
                for batch in table.iter_batches(batch_size=_ROWS, columns=wanted):
                    ids: list[Any] = [f"{file.name}:{row}" for row in range(first, first + batch.num_rows)]
                    if id_column is not None:
                        ids = batch.column(id_column).to_pylist()
                    if None in ids:
                        raise FormatError(
                            f"{file}: the column {id_column!r} has no value in row {first + ids.index(None)}."
                        )
                    ids = list(map(str, ids))
                    sources = batch.column("source").to_pylist() if "source" in names else ids
                    sources = [id_ if source is None else str(source) for id_, source in zip(ids, sources, strict=True)]
                    yield _rows_of_lists(file, first, batch.column(embeddings), embeddings), ids, sources
                    first += batch.num_rows

    return blocks, None, None


def _embedding_column(path: Path, schema: Any, asked: str | None) -> str:
    types = _pyarrow().types
    found = [
        field.name
        for field in schema
        if (types.is_list(field.type) or types.is_large_list(field.type) or types.is_fixed_size_list(field.type))
        and types.is_floating(field.type.value_type)
    ]
    if asked in found or (asked is None and len(found) == 1):
        return asked or str(found[0])
    wanted = "one column of lists of floats" if asked is None else f"lists of floats in the column {asked!r}"
    raise ConfigError(
        f"{path}: expected {wanted}, columns of that kind: {', '.join(found) or 'none'}. Name one with --column."
    )


def _rows_of_lists(path: Path, first: int, lists: Any, column: str) -> torch.Tensor:
    lengths = _pyarrow().compute.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero((lengths != lengths[0]) | (lengths == 0))
    if wrong.size:
        raise DimensionError(
            f"{path}: expected {lengths[0]} values in each row of {column!r}, got {lengths[wrong[0]]} in row "
            f"{first + int(wrong[0])}."
        )
    values = np.array(lists.flatten().to_numpy(zero_copy_only=False))  # one of our own: arrow's cannot be written to
    return torch.from_numpy(values.reshape(len(lists), lengths[0]))


def _write_parquet(memory: Memory, path: Path) -> None:
    arrow = _pyarrow()
    kind = arrow.float16() if memory.dtype == "float16" else arrow.float32()
    schema = arrow.schema(
        [("id", arrow.string()), ("source", arrow.string()), ("embedding", arrow.list_(kind, memory.width))]
    )
    # Embeddings hardly compress, and dictionaries of them cost time.
    with arrow.parquet.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for rows, ids, sources in _kept(memory):
            lists = arrow.FixedSizeListArray.from_arrays(arrow.array(rows.reshape(-1)), memory.width)
            writer.write_batch(arrow.record_batch([_strings(ids), _strings(sources), lists], schema=schema))


def _strings(values: Sequence[str]) -> Any:
    try:
        return _pyarrow().array(values, _pyarrow().string())
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{error.object!r} is not valid Unicode, which Parquet asks for. Export as npy instead."
        ) from error


def _pyarrow() -> Any:
    """Import pyarrow with its Parquet reader.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise missing_dependency("pyarrow", extra="parquet", purpose="Parquet files") from error
    return pyarrow


@contextmanager
def _opened_table(path: Path) -> Iterator[Any]:
    arrow = _pyarrow()
    with _reading(path, "Parquet file"), path.open("rb") as file, arrow.parquet.ParquetFile(file) as table:
        yield table


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    """Turn what goes wrong while a file is read into an error of cmcr."""
    try:
        yield
    except CmcrError:  # some are OSErrors and ValueErrors too
        raise
    except FileNotFoundError as error:
        raise ArtefactNotFoundError(errno.ENOENT, "there is no such file", str(path)) from error
    except OSError as error:
        raise ReadError(error.errno or errno.EIO, f"could not read ({error.strerror or error})", str(path)) from error
    except (ValueError, KeyError, TypeError, AttributeError, EOFError) as error:  # pyarrow's errors are ValueErrors
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise DtypeError(
                f"{path}: holds Python objects, which cmcr never unpickles. Save plain numbers."
            ) from error
        raise FormatError(f"{path}: not a whole {kind} ({error}).") from error


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

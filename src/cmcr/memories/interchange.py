"""Memories from the files of other programs: numpy arrays, Parquet, the folders of clip-retrieval.

`cmcr memory import`; see docs/memories.md. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmcr.data.items.tables import pyarrow_here
from cmcr.errors import (
    ArtefactNotFoundError,
    CmcrError,
    ConfigError,
    DimensionError,
    FormatError,
    unknown_name,
)
from cmcr.files import reading
from cmcr.memories.layout import parsed_lines
from cmcr.memories.memory import Memory
from cmcr.memories.precomputed import write_memory

IMPORTED = ("npy", "clip-retrieval", "parquet")
_PARTS = {"image": "img_emb", "text": "text_emb"}  # of clip-retrieval
_ROWS = 16_384

_Given = tuple[Iterable[Any], Sequence[str], Sequence[str] | None]
"""What `cmcr.write_memory` takes: blocks of rows, ids, sources."""


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
    """Turn the files of another program into a memory, or resume a run that was stopped; see docs/memories.md.

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
        CmcrError: others, as `cmcr.write_memory`.
    """
    if layout not in IMPORTED:
        raise unknown_name("layout", layout, IMPORTED)
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


def _npy_rows(path: Path, ids: Path | None) -> _Given:
    array = _mapped(path)
    if ids is None:
        return array, [f"{path.name}:{row}" for row in range(len(array) if array.ndim else 1)], None
    with _parsing(ids, "list of ids"):
        content = ids.read_bytes()
        if ids.suffix == ".jsonl":
            lines = parsed_lines(content)
            return array, [line["id"] for line in lines], [line.get("source", line["id"]) for line in lines]
        text = content.decode("utf-8-sig")
        return array, text.replace("\r\n", "\n").removesuffix("\n").split("\n"), None


def _mapped(path: Path) -> Any:
    """Map a numpy file into memory; one of Python objects, which would have to be unpickled, is refused."""
    with _parsing(path, "numpy file (.npy) of plain numbers; cmcr never unpickles"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise FormatError(f"{path}: expected one array, got an archive of several.")
    return array


def _clip_retrieval_rows(folder: Path, modality: str) -> _Given:
    """Read the partitions by their numbers. Ids are the paths of pictures if all rows have one of their own."""
    if modality not in _PARTS:
        raise ConfigError(f"clip-retrieval keeps image and text, got {modality!r}. Use npy or parquet.")
    part = _PARTS[modality]
    found = {
        match[1]: path for path in (folder / part).glob("*.npy") if (match := re.fullmatch(rf"{part}_(\d+)", path.stem))
    }
    if not found:
        raise ArtefactNotFoundError(
            errno.ENOENT, f"there are no {part}_0.npy, {part}_1.npy, ... here", str(folder / part)
        )
    numbers = sorted(found, key=int)  # however many zeros stand before them
    tables = [_picture_paths(folder / "metadata" / f"metadata_{number}.parquet") for number in numbers]
    paths = [path for table in tables for path in table]
    if None in paths or len(set(paths)) < len(paths):
        paths = [f"{number}:{row}" for number, table in zip(numbers, tables, strict=True) for row in range(len(table))]

    def blocks() -> Iterator[Any]:
        for number, table in zip(numbers, tables, strict=True):
            array = _mapped(found[number])
            if len(array) != len(table):  # unseen, the rows of all partitions behind it would have wrong ids
                raise DimensionError(f"{found[number]}: {len(array)} rows, its metadata has {len(table)}.")
            yield array

    return blocks(), paths, None


def _picture_paths(path: Path) -> list[Any]:
    """Read the paths of the pictures of a partition; None for each where there are none."""
    with _opened_table(path) as table:
        if "image_path" not in table.schema_arrow.names:
            return [None] * table.metadata.num_rows
        return list(table.read(["image_path"]).column(0).to_pylist())


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
    ids, sources = list[str](), list[str]()
    for file in files:
        with _opened_table(file) as table:
            columns = table.read([name for name in (id_column, "source") if name in names]).to_pydict()
            own = [f"{file.name}:{row}" for row in range(table.metadata.num_rows)]
        given: list[Any] = own if id_column is None else columns[id_column]
        if None in given:
            raise FormatError(f"{file}: the column {id_column!r} has no value in row {given.index(None)}.")
        from_where = columns.get("source", given)
        ids += map(str, given)
        sources += [str(id_ if source is None else source) for id_, source in zip(given, from_where, strict=True)]

    def blocks() -> Iterator[torch.Tensor]:
        for file in files:
            first = 0
            with _opened_table(file) as table:
                for batch in table.iter_batches(batch_size=_ROWS, columns=[embeddings]):
                    yield _rows_of_lists(file, first, batch.column(0), embeddings)
                    first += batch.num_rows

    return blocks(), ids, sources


def _embedding_column(path: Path, schema: Any, asked: str | None) -> str:
    types = pyarrow_here().types
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
    lengths = pyarrow_here().compute.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero((lengths != lengths[0]) | (lengths == 0))
    if wrong.size:
        raise DimensionError(
            f"{path}: expected {lengths[0]} values in each row of {column!r}, got {lengths[wrong[0]]} in row "
            f"{first + int(wrong[0])}."
        )
    values = np.array(lists.flatten().to_numpy(zero_copy_only=False))  # one of our own: arrow's cannot be written to
    return torch.from_numpy(values.reshape(len(lists), lengths[0]))


@contextmanager
def _opened_table(path: Path) -> Iterator[Any]:
    arrow = pyarrow_here()
    with _parsing(path, "Parquet file"), path.open("rb") as file, arrow.parquet.ParquetFile(file) as table:
        yield table


@contextmanager
def _parsing(path: Path, kind: str) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a `ReadError`, or a `FormatError` where its content is at fault."""
    with reading(path):
        try:
            yield
        except CmcrError:  # some are ValueErrors too
            raise
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError) as error:  # pyarrow's too
            raise FormatError(f"{path}: not a whole {kind} ({error}).") from error

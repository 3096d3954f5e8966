"""Numpy arrays beside a list of ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmcr.arrays import rows_of
from cmcr.errors import ArtefactNotFoundError, DimensionError, DtypeError, FormatError, ReadError, TooFewRowsError
from cmcr.memories.array_rows import ArrayRows, FileRows
from cmcr.memories.interchange.exported import Exported
from cmcr.memories.layout import item_lines, parsed_lines
from cmcr.memories.listed_items import ListedItems
from cmcr.memories.row_source import RowSource

ROWS, ITEMS = "embeddings.npy", "items.jsonl"


def npy_rows(path: Path, ids: Path | None = None) -> RowSource:
    """Open a numpy file, or a folder that `write_npy` has written.

    Args:
        path: of the `.npy` file, `(n, D)` floating point; or the folder.
        ids: text lines, a JSON list, JSONL with "id" and maybe "source", or `.npy` of strings; None takes that of the
            folder, or numbers rows as `name.npy:0`.

    Raises:
        ArtefactNotFoundError, ReadError, FormatError: a file that is not there or not what it should be.
        DtypeError, DimensionError, TooFewRowsError: not an array of embeddings, or another number of ids.
    """
    if path.is_dir():
        ids = ids or (path / ITEMS if (path / ITEMS).is_file() else None)
        path = path / ROWS
    count = mapped_array(path).shape[0]
    given = read_items(ids) if ids is not None else (None, None)
    return array_file(path, ListedItems(count, *given, prefix=f"{path.name}:", description=str(path)))


def array_file(path: Path, items: ListedItems) -> RowSource:
    """Open the rows of a numpy file, to be read without more of it in RAM than is asked for."""
    array = mapped_array(path)
    if array.flags.c_contiguous:
        return FileRows(str(path), path, offset=array.offset, dtype=array.dtype, width=array.shape[1], items=items)
    return ArrayRows(str(path), rows_of(array, str(path)), items)


def mapped_array(path: Path) -> np.memmap[Any, np.dtype[np.floating]]:
    """Map a numpy file of embeddings into memory, after checking its kind and shape; nothing in it is unpickled."""
    array = mapped(path)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise DtypeError(f"{path}: expected float16, float32 or float64, got {array.dtype}. Convert it first.")
    if array.ndim != 2 or array.shape[1] == 0:
        raise DimensionError(f"{path}: expected shape (n, D), got {array.shape}.")
    return array


def mapped(path: Path) -> Any:
    """Map any numpy file but one of Python objects, which would have to be unpickled."""
    try:
        with path.open("rb") as file:
            magic = file.read(6)
        if magic != b"\x93NUMPY":
            raise FormatError(f"{path}: expected a .npy file, it begins with {magic!r}.")
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise ArtefactNotFoundError(error.errno, "there is no such file", str(path)) from error
    except OSError as error:
        raise ReadError(error.errno or 5, f"could not read ({error.strerror or error})", str(path)) from error
    except ValueError as error:
        if "Python objects" in str(error):
            raise DtypeError(
                f"{path}: holds Python objects, which cmcr never unpickles. Save plain numbers."
            ) from error
        if "empty" in str(error):
            raise TooFewRowsError(f"{path}: expected at least 1 row, got none.") from error
        raise FormatError(f"{path}: not a whole .npy file ({error}).") from error


def read_items(path: Path) -> tuple[Sequence[str], Sequence[str] | None]:
    """Read ids, and sources if there are any, by the ending of the file.

    Raises:
        ArtefactNotFoundError, ReadError, FormatError: not there, or not what its ending says.
    """
    if path.suffix == ".npy":
        array = mapped(path)
        if array.ndim != 1 or array.dtype.kind != "U":
            raise FormatError(f"{path}: expected one string a row, got {array.dtype} {array.shape}.")
        return array.tolist(), None
    try:
        content = path.read_bytes()
        if path.suffix == ".jsonl":
            lines = parsed_lines(content)
            return [line["id"] for line in lines], [line.get("source", line["id"]) for line in lines]
        if path.suffix == ".json":
            given = json.loads(content)
            if not isinstance(given, list):
                raise FormatError(f"{path}: expected a JSON list of ids, got {type(given).__name__}.")
            return given, None
        return content.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n"), None
    except FileNotFoundError as error:
        raise ArtefactNotFoundError(error.errno, "there is no such file of ids", str(path)) from error
    except OSError as error:
        raise ReadError(error.errno or 5, f"could not read ({error.strerror})", str(path)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: not a list of ids ({error}).") from error


def write_npy(exported: Exported, folder: Path) -> None:
    """Write `embeddings.npy`, and `items.jsonl` with the ids and sources."""
    with (folder / ROWS).open("wb") as rows, (folder / ITEMS).open("wb") as items:
        write_header(rows, exported.dtype, (exported.count, exported.width))
        for block in exported.blocks():
            rows.write(np.ascontiguousarray(block.rows).data)
            items.write(item_lines(zip(block.ids, block.sources, strict=True)))


def write_header(file: Any, dtype: np.dtype[Any], shape: tuple[int, int]) -> None:
    """Begin a numpy file whose rows are written after it."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)

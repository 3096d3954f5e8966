"""Files of points that need no library: npy, npz, and text (xyz, txt, pts, csv) to a table of numbers."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cmcr.data.paths import NamedBytes
from cmcr.data.texts import read_lines
from cmcr.errors import SampleError

POINT_SUFFIXES = (".npy", ".npz", ".xyz", ".txt", ".pts", ".csv")

_POINT_KEYS = ("points", "xyz")
_COLOUR_KEYS = ("colours", "colors", "rgb")
_SEPARATORS = str.maketrans(",;", "  ")
_UNPICKLED = (
    "Pickled files can run code and are never opened. If you trust this one, convert it once: "
    "points = numpy.load(path, allow_pickle=True).item()['xyz']; numpy.save('points.npy', points)"
)


@dataclass(frozen=True)
class PointTable:
    """What a source says, before it is checked.

    Args:
        numbers: `(p, 3)` coordinates, or wider with further columns.
        colours: `(p, 3)` or `(p, 4)`, of their own; `None` where they could only be among the columns.
    """

    numbers: NDArray[Any]
    colours: NDArray[Any] | None = None


def read_point_file(file: Path | NamedBytes, name: str) -> PointTable:
    """Read one file of points by its ending.

    Args:
        file: a file that is there, or its bytes, with one of `POINT_SUFFIXES`.
        name: how messages call it.

    Raises:
        SampleError: pickled, damaged, no points in it, or text that is not numbers (with its line).
    """
    suffix = file.suffix.lower()
    if suffix == ".npy":
        return PointTable(_from_npy(file, name))
    if suffix == ".npz":
        return _from_npz(file, name)
    return _from_text(file, name, suffix)


def table_of(arrays: Mapping[str, Any], name: str) -> PointTable:
    """Pick points and colours out of named arrays.

    The points are the entry `points` or `xyz`, or the only entry; colours are `colours`, `colors` or `rgb`.

    Raises:
        SampleError: none of these, or both names of the points.
    """
    points = [key for key in _POINT_KEYS if key in arrays]
    if not points and len(arrays) == 1:
        points = list(arrays)
    if len(points) != 1:
        raise SampleError(
            f"{name}: expected one array, or one named {' or '.join(map(repr, _POINT_KEYS))}, got: {', '.join(arrays)}."
        )
    colours = next((np.asarray(arrays[key]) for key in _COLOUR_KEYS if key in arrays), None)
    return PointTable(np.asarray(arrays[points[0]]), colours)


def _from_npy(file: Path | NamedBytes, name: str) -> NDArray[Any]:
    try:
        # Mapped first: a header that promises more than the file holds then fails before anything is allocated. Of bytes
        # numpy allocates what the header promises, which takes no memory until it is filled.
        mapped: Literal["r"] | None = "r" if isinstance(file, Path) else None
        loaded = np.load(_opened(file), allow_pickle=False, mmap_mode=mapped)
    except Exception as error:  # a damaged header is parsed as Python and raises its syntax errors
        raise SampleError(f"{name}: not a plain array of numbers ({error}). {_UNPICKLED}") from error
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise SampleError(f"{name}: expected a .npy file with one array, got an archive. Name it .npz.")
    return np.array(loaded)


def _from_npz(file: Path | NamedBytes, name: str) -> PointTable:
    if not zipfile.is_zipfile(_opened(file)):
        raise SampleError(f"{name}: not an archive of arrays (.npz), or cut short.")
    try:
        with np.load(_opened(file), allow_pickle=False) as archive:
            return table_of({key: archive[key] for key in archive.files}, name)
    except SampleError:  # a ValueError too: already said
        raise
    except Exception as error:  # as above, and what zipfile and zlib raise
        raise SampleError(f"{name}: not an archive of plain arrays of numbers ({error}). {_UNPICKLED}") from error


def _opened(file: Path | NamedBytes) -> Path | io.BytesIO:
    return file if isinstance(file, Path) else io.BytesIO(file.content)


def _from_text(file: Path | NamedBytes, name: str, suffix: str) -> PointTable:
    """Read one point a line; `#` and `//` begin comments, the first line may be names or the number of points."""
    rows, promised = _rows_of(file, name)
    if promised is not None and promised != len(rows):
        raise SampleError(f"{name}: the first line promises {promised} points, {len(rows)} follow.")
    if not rows:
        raise SampleError(f"{name}: holds no points.")
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise SampleError(f"{name}: its lines hold {min(widths)} to {max(widths)} numbers; each must hold the same.")
    table = np.array(rows, dtype=np.float64)
    if suffix == ".pts" and table.shape[1] == 7:  # x y z intensity r g b, as laser scanners write
        return PointTable(table[:, :3], table[:, 4:])
    return PointTable(table)


def _rows_of(file: Path | NamedBytes, name: str) -> tuple[list[list[float]], int | None]:
    rows: list[list[float]] = []
    promised, first = None, True
    for number, line in enumerate(_lines(file, name), start=1):
        words = line.partition("#")[0].partition("//")[0].translate(_SEPARATORS).split()
        if not words:
            continue
        if first and len(words) == 1 and words[0].isdecimal():
            promised = int(words[0])
        elif not (first and all(word.strip('"').isidentifier() for word in words)):
            rows.append(_numbers(words, f"{name} line {number}"))
        first = False
    return rows, promised


def _lines(file: Path | NamedBytes, name: str) -> list[str]:
    if isinstance(file, Path):
        return read_lines(file, "point cloud")
    try:
        return file.content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SampleError(f"{name}: not UTF-8: byte {error.start}. Save it as UTF-8.") from error


def _numbers(words: list[str], name: str) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise SampleError(f"{name}: expected numbers, got {' '.join(words)[:60]!r}.") from error

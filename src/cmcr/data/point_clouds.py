"""Point clouds: files, meshes and arrays to float32 coordinates and colours."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.data.meshes import MESH_SUFFIXES, MOST_LINES, MOST_ROWS, read_points
from cmcr.data.paths import MOST_BYTES, NamedBytes, content_of, file_of
from cmcr.data.texts import decode_utf8, lines_of
from cmcr.errors import SampleError, unknown_name

PointCloud = str | Path | NamedBytes | NDArray[np.floating] | Mapping[str, Any]

POINT_SUFFIXES = (".npy", ".npz", ".xyz", ".txt", ".pts", ".csv")
FEWEST_POINTS = 16
MESH_POINTS = 10_000
"""How many points a mesh is sampled to: what ULIP-2 was trained on."""

_MOST_ARRAYS = 100  # of an archive
_LONGEST_ROW = 10_000  # characters
_POINT_KEYS = ("points", "xyz")
_COLOUR_KEYS = ("colours", "colors", "rgb")
_SEPARATORS = str.maketrans(",;", "  ")
# OpenShape and Objaverse publish clouds as pickled dictionaries with the keys xyz and rgb.
_UNPICKLED = (
    " Pickled files can run code and are never opened. If you trust this one, convert it once: "
    "cloud = numpy.load(path, allow_pickle=True).item(); numpy.savez('cloud.npz', xyz=cloud['xyz'], rgb=cloud['rgb'])"
)
_TO_Y_UP = {
    "x": np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=np.float32),
    "y": np.eye(3, dtype=np.float32),
    "z": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float32),
}


@dataclass(frozen=True)
class ColouredPointCloud:
    """A point cloud with the colours of its source.

    Args:
        points: `(p, 3)` float32, finite, in the units and axes of the source.
        colours: `(p, 3)` float32 red, green, blue in [0, 1]; `None` where the source has none.
    """

    points: NDArray[np.float32]
    colours: NDArray[np.float32] | None


def read_point_cloud(source: PointCloud) -> NDArray[np.float32]:
    """Read the coordinates of one point cloud; see `read_coloured_point_cloud` for the files and the rules.

    Args:
        source: a path, `NamedBytes`, or an array `(p, 3)` or with further columns such as colours or normals, which are
            left out.

    Returns:
        `(p, 3)` float32: x, y (up), z in the units of the source. Sources with another axis up: `with_up_axis`.

    Raises:
        SampleError: no such file, too large (see the page of limits), another format, a pickled file, another shape, NaN, or
            fewer than 16 points.
        MissingDependencyError: a mesh or ply file without the extra `mesh`.
    """
    (numbers, _), name = _table(source)
    return _coordinates(numbers, name)


def read_coloured_point_cloud(source: PointCloud) -> ColouredPointCloud:
    """Read one point cloud with its colours.

    Files of points are npy, npz (one array, or `points` or `xyz`, and `colours`, `colors` or `rgb`) and text (xyz, txt,
    pts, csv). With the extra `mesh` also ply, obj, off, glb and stl: with faces they are meshes, whose surface is sampled,
    10,000 points, always the same; without, their vertices are the points.

    Among the columns of a table, colours are the last three of exactly six, unless one of them is negative: then they are
    normals. Colours are divided by 255 where they are integers or one of them is above 1.

    Args:
        source: a path, a file inside another as `NamedBytes` (its ending says the format), an array
            `(p, 3)` or wider, or a mapping of names to arrays as in npz.

    Raises:
        SampleError: as `read_point_cloud`, or colours out of range or of another number than the points.
        MissingDependencyError: a mesh or ply file without the extra `mesh`.
    """
    (numbers, colours), name = _table(source)
    return ColouredPointCloud(_coordinates(numbers, name), _colours(numbers, colours, name))


def with_up_axis(points: NDArray[np.float32], up_axis: str) -> NDArray[np.float32]:
    """Turn a cloud whose up axis is `up_axis` so that y is up, as the encoders expect. Nothing is mirrored.

    From z: `(x, y, z) -> (x, z, -y)`; from x: `(x, y, z) -> (-y, x, z)`.

    Args:
        points: `(p, 3)`.
        up_axis: "x", "y" or "z".

    Raises:
        ConfigError: another axis.
    """
    if up_axis not in _TO_Y_UP:
        raise unknown_name("up axis", up_axis, _TO_Y_UP)
    return np.ascontiguousarray(points @ _TO_Y_UP[up_axis].T, dtype=np.float32)


def normalised(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centre a cloud on its mean and divide by its largest radius, as ULIP does: `(p, 3)` -> `(p, 3)` float32.

    Raises:
        SampleError: all points are equal, so that there is no radius to divide by.
    """
    _refuse_one_place(points, "the point cloud")
    centred = points - points.mean(axis=0, dtype=np.float64)
    return np.asarray(centred / np.sqrt((centred**2).sum(axis=1).max()), dtype=np.float32)


_Table = tuple[NDArray[Any], NDArray[Any] | None]
"""What a source holds, unchecked: `(p, 3)` coordinates or wider, and `(p, 3)` colours where they are apart."""


def _table(source: PointCloud) -> tuple[_Table, str]:
    name = "the point cloud"
    if isinstance(source, np.ndarray):
        return (source, None), name
    if isinstance(source, Mapping):
        return _from_arrays(source, name), name
    if isinstance(source, NamedBytes):
        return _from_file(source, source.name), source.name
    if not isinstance(source, str | os.PathLike):
        raise SampleError(f"a point cloud must be a path or an array (p, 3), got {type(source).__name__}.")
    return _from_file(file_of(source, "point cloud"), str(source)), str(source)


def _from_file(file: Path | NamedBytes, name: str) -> _Table:
    suffix = file.suffix.lower()
    if suffix in (".npy", ".npz"):
        return _from_numpy(content_of(file, name), name)
    if suffix in POINT_SUFFIXES:
        return _from_text(content_of(file, name), name)
    if suffix in MESH_SUFFIXES:
        return read_points(file, name, MESH_POINTS)
    expected = ", ".join((*POINT_SUFFIXES, *MESH_SUFFIXES))
    raise SampleError(f"{name}: expected a file ending in {expected}, got {suffix or 'no ending'}.")


def _from_numpy(content: bytes, name: str) -> _Table:
    try:
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded, None
        members = loaded.zip.infolist()
        size = sum(member.file_size for member in members)  # reading stops there
        if size > MOST_BYTES or len(members) > _MOST_ARRAYS:
            raise ValueError(
                f"{len(members):,} arrays of {size:,} bytes, the limit is {_MOST_ARRAYS} of {MOST_BYTES:,}"
            )
        arrays = dict(loaded)
    except Exception as error:  # a damaged header is parsed as Python, an archive by zipfile and zlib: each has its own
        hint = _UNPICKLED if "pickle" in str(error) else ""
        raise SampleError(
            f"{name}: not a plain array of numbers (.npy), nor an archive of them (.npz): {error}.{hint}"
        ) from error
    return _from_arrays(arrays, name)


def _from_arrays(arrays: Mapping[str, Any], name: str) -> _Table:
    """Pick points and colours out of named arrays; a single array holds the points, whatever its name."""
    points = [key for key in _POINT_KEYS if key in arrays] or list(arrays)
    if len(points) != 1:
        raise SampleError(
            f"{name}: expected one array, or one named {' or '.join(map(repr, _POINT_KEYS))}, got: {', '.join(arrays)}."
        )
    colours = next((np.asarray(arrays[key]) for key in _COLOUR_KEYS if key in arrays), None)
    return np.asarray(arrays[points[0]]), colours


def _from_text(content: bytes, name: str) -> _Table:
    """Read one point a line; `#` and `//` begin comments, the first line may be names."""
    if content.count(b"\n") + content.count(b"\r") > MOST_LINES:
        raise SampleError(f"{name}: more than {MOST_LINES:,} lines. Save it as npy.")
    rows = [row for row in lines_of(decode_utf8(content, name).translate(_SEPARATORS)) if row.strip()]
    if max(map(len, rows), default=0) > _LONGEST_ROW:
        raise SampleError(f"{name}: expected a point a line, got a line of more than {_LONGEST_ROW:,} characters.")
    if rows and all(word.strip('"').isidentifier() for word in rows[0].split()):
        rows = rows[1:]
    if not rows:
        raise SampleError(f"{name}: holds no points.")
    try:
        return np.loadtxt(rows, comments=["#", "//"], ndmin=2), None
    except ValueError as error:
        reason = str(error).partition(";")[0]  # without numpy's advice, which is about its own options
        raise SampleError(f"{name}: expected lines of numbers, all of the same length ({reason}).") from error


def _coordinates(numbers: NDArray[Any], name: str) -> NDArray[np.float32]:
    if numbers.dtype.kind not in "fiu" or numbers.ndim != 2 or numbers.shape[1] < 3:
        raise SampleError(f"{name}: expected numbers of shape (p, 3) or wider, got {numbers.dtype} {numbers.shape}.")
    if not FEWEST_POINTS <= len(numbers) <= MOST_ROWS:
        raise SampleError(f"{name}: expected {FEWEST_POINTS} to {MOST_ROWS:,} points, got {len(numbers):,}.")
    with np.errstate(over="ignore"):  # beyond float32 is infinity, refused below
        xyz = np.ascontiguousarray(numbers[:, :3], dtype=np.float32)
    if not np.isfinite(xyz).all():
        raise SampleError(f"{name}: holds NaN or infinity.")
    _refuse_one_place(xyz, name)
    return xyz


def _refuse_one_place(points: NDArray[np.float32], name: str) -> None:
    if (points == points[:1]).all():
        raise SampleError(f"{name}: all {len(points)} points lie in one place, which has no shape.")


def _colours(numbers: NDArray[Any], given: NDArray[Any] | None, name: str) -> NDArray[np.float32] | None:
    if given is None:
        given = numbers[:, 3:]
        if given.shape[1] != 3 or (given < 0).any():
            return None
    if given.ndim != 2 or given.shape[1] != 3 or len(given) != len(numbers):
        raise SampleError(f"{name}: expected colours of shape ({len(numbers)}, 3), got {given.shape}.")
    if given.dtype.kind not in "fiu" or not np.isfinite(given).all() or given.min() < 0 or given.max() > 255:
        raise SampleError(f"{name}: its colours must be numbers in [0, 1] or in [0, 255].")
    of_255 = given.dtype.kind in "iu" or given.max() > 1
    return np.ascontiguousarray(given / 255 if of_255 else given, dtype=np.float32)

"""Point clouds: files and arrays to float32 coordinates."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import SampleError

PointCloud = str | Path | NDArray[np.floating]

FEWEST_POINTS = 16


def read_point_cloud(source: PointCloud) -> NDArray[np.float32]:
    """Read the coordinates of one point cloud.

    Args:
        source: a path to a `.npy` array (never unpickled), or an array, `(p, 3)` or with further columns such as colours,
            which are left out.

    Returns:
        `(p, 3)` float32: x, y (up), z in the units of the source.

    Raises:
        SampleError: no such file, another format, a pickled file, another shape, NaN, or fewer than 16 points.
    """
    points = source if isinstance(source, np.ndarray) else _from_file(source)
    name = "the point cloud" if isinstance(source, np.ndarray) else str(source)
    if points.dtype.kind not in "fiu" or points.ndim != 2 or points.shape[1] < 3:
        raise SampleError(f"{name}: expected numbers of shape (p, 3) or wider, got {points.dtype} {points.shape}.")
    if len(points) < FEWEST_POINTS:
        raise SampleError(f"{name}: expected at least {FEWEST_POINTS} points, got {len(points)}.")
    xyz = np.ascontiguousarray(points[:, :3], dtype=np.float32)
    if not np.isfinite(xyz).all():
        raise SampleError(f"{name}: holds NaN or infinity.")
    return xyz


def _from_file(source: str | Path) -> NDArray[np.floating]:
    if not isinstance(source, str | os.PathLike):
        raise SampleError(f"a point cloud must be a path or an array (p, 3), got {type(source).__name__}.")
    path = Path(source)
    if not path.is_file():
        raise SampleError(f"{source}: no such point cloud.")
    if path.suffix != ".npy":
        raise SampleError(f"{source}: expected a .npy file with an array of shape (p, 3).")
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SampleError(
            f"{source}: not a plain array of numbers ({error}). Pickled files can run code and are never opened; save the "
            "coordinates alone with numpy.save."
        ) from error
    if not isinstance(loaded, np.ndarray):
        raise SampleError(f"{source}: expected a .npy file with one array, got an archive.")
    return loaded

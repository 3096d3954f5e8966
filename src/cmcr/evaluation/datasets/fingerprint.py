"""A hash of a data set as it was read: the same on every system, whatever folder the files lie in."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcr.data.audio import SoundClip
from cmcr.data.videos import VideoFrame
from cmcr.errors import ReadError


def hash_of(*parts: Any) -> str:
    """Hash arrays by their shape and their numbers in little-endian order, all else as canonical JSON."""
    total = hashlib.sha256()
    for part in parts:
        piece = _array_bytes(part) if isinstance(part, np.ndarray) else _json_bytes(part)
        total.update(len(piece).to_bytes(8, "little"))
        total.update(piece)
    return total.hexdigest()


def identity_of(items: Sequence[Any]) -> list[Any]:
    """Say what each item is, without where it lies: texts as they are, files by their size, arrays by a hash.

    The size stands for the content of a file: hashing gigabytes before every task would take longer than many a task.

    Raises:
        ReadError: a file is no longer there.
    """
    return [_identity(item) for item in items]


def _identity(item: Any) -> Any:
    if isinstance(item, str):
        return item
    if isinstance(item, Path):
        return _size(item)
    if isinstance(item, VideoFrame):
        return ["frame", _size(Path(item.path)), float(item.at), item.unit]
    if isinstance(item, SoundClip):
        return ["clip", _size(Path(item.path)), float(item.start_seconds), float(item.length_seconds)]
    if isinstance(item, np.ndarray):
        return hashlib.sha256(_array_bytes(item)).hexdigest()
    if isinstance(item, Image.Image):
        return _identity(np.asarray(item))
    if isinstance(item, Mapping):
        return {str(key): _identity(value) for key, value in sorted(item.items())}
    if isinstance(item, int | float | bool):
        return item
    raise TypeError(f"no identity for a {type(item).__name__}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        reason = error.strerror or str(error)
        raise ReadError(error.errno or errno.EIO, f"could not read ({reason})", str(path)) from error


def _array_bytes(array: NDArray[Any]) -> bytes:
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    return _json_bytes([little.dtype.str, list(array.shape)]) + little.tobytes()


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()

"""Cells of lists to contents: a text is itself; for other modalities a cell is a path, or the bytes of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmcr.data.paths import NamedBytes
from cmcr.errors import SampleError


@dataclass(frozen=True, slots=True)
class DamagedRow:
    """A row that cannot be read, though those around it can.

    Args:
        reason: what is wrong with it and what to do.
        raw: what is there, for the digest of the list.
    """

    reason: str
    raw: bytes = b""


def content_of(cell: Any, modality: str, folder: Path, where: str) -> Any:
    """Bring a cell to what a space reads.

    Args:
        cell: a string; from Parquet also bytes, or a mapping with `bytes` and `path` as `datasets` writes them.
        modality: what it should be.
        folder: what relative paths begin from.
        where: the row, for messages.

    Returns:
        A string, a path, bytes or `NamedBytes`; a `SampleError` for anything else.
    """
    if modality == "text":
        if isinstance(cell, str):
            return cell
        return SampleError(f"{where}: expected a text, got {_kind(cell)}. Fill the cell with a string.")
    if isinstance(cell, Mapping):
        if isinstance(cell.get("bytes"), bytes):
            return _from_bytes(cell["bytes"], modality, cell.get("path"), where)
        cell = cell.get("path")
    if isinstance(cell, bytes):
        return _from_bytes(cell, modality, None, where)
    if not isinstance(cell, str):
        return SampleError(f"{where}: expected a path, got {_kind(cell)}. Fill the cell or leave the row out.")
    if not cell.strip():
        return SampleError(f"{where}: blank; expected a path. Fill it or leave the row out.")
    return cell if "://" in cell else folder / cell


def mark_of(cell: Any) -> bytes:
    """What tells a cell from another: its text or bytes."""
    if isinstance(cell, Mapping) and isinstance(cell.get("bytes"), bytes):
        return cell["bytes"]
    if isinstance(cell, bytes):
        return cell
    text = cell if isinstance(cell, str) else repr(cell)
    return text.encode(errors="surrogatepass")


def _from_bytes(content: bytes, modality: str, name: Any, where: str) -> Any:
    if modality != "point_cloud":
        return content
    if isinstance(name, str) and name:
        return NamedBytes(name, content)
    return SampleError(f"{where}: the bytes of a point cloud do not say their format. List paths, or use tar files.")


def _kind(cell: Any) -> str:
    return "nothing" if cell is None else type(cell).__name__

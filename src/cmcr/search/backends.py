"""The back-ends by name: which for how many rows, made and opened."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import unknown_name
from cmcr.memories.memory import Memory
from cmcr.search.approximate import RECALL, Approximate
from cmcr.search.exact import ExactIndex
from cmcr.search.index import Index

_MODULES = {"faiss": "cmcr.search.faiss_index", "lancedb": "cmcr.search.lance_index"}
KINDS = ("exact", *_MODULES)
EXACT_ROWS = 2_000_000
"""Up to here exact search of 512 numbers a row takes less than half a second a query on two cores."""


def choose_backend(rows: int) -> str:
    """Choose by the number of rows: "exact", or above `EXACT_ROWS` "faiss" where it is installed."""
    return "faiss" if rows > EXACT_ROWS and find_spec("faiss") else "exact"


def build_backend(
    kind: str,
    folder: str | Path,
    memory: Memory,
    extras: NDArray[np.float32] | None,
    order: NDArray[np.integer] | None,
    **options: Any,
) -> dict[str, Any]:
    """Write what a back-end needs beside the memory, measured against exact search.

    Args:
        kind: "exact", which needs nothing, "faiss" or "lancedb".
        folder: what is written; of lancedb also the URI of an object store. An index that is there is replaced.
        memory: rows `(N, D)`.
        extras: `(N, E)` float32, or None.
        order: `(N,)` for ties, or None.
        **options: of the back-end, see `build` in its module.

    Returns:
        its card, which lies in the folder too: JSON.

    Raises:
        ConfigError: there is no such back-end.
        MissingDependencyError: its library is not installed.
        WriteError: no permission, disk full.
    """
    _check_kind(kind)
    exact = ExactIndex(memory, extras, order)
    if kind == "exact":
        return {"kind": "exact", "rows": len(exact)}
    card: dict[str, Any] = import_module(_MODULES[kind]).build(folder, exact, **options)
    return card


def open_backend(
    kind: str,
    folder: str | Path,
    memory: Memory,
    extras: NDArray[np.float32] | None,
    order: NDArray[np.integer] | None,
) -> Index:
    """Open what `build_backend` has written, after checking that it was made of these rows.

    The memory may have grown since: rows that the back-end does not hold are not found before they are added.

    Raises:
        ConfigError: there is no such back-end; or other rows: build it again.
        MissingDependencyError: its library is not installed.
        ArtefactNotFoundError, FormatError, IntegrityError, ReadError: not there, not ours, or damaged.
    """
    _check_kind(kind)
    exact = ExactIndex(memory, extras, order)
    if kind == "exact":
        return exact
    index: Index = import_module(_MODULES[kind]).open_index(folder, exact)
    return index


def save_backend(index: Index, folder: str | Path) -> dict[str, Any]:
    """Write what was added to an open index; of lancedb, what was dropped is deleted. Recall is measured again.

    Returns:
        its card.

    Raises:
        WriteError: no permission, disk full.
    """
    if isinstance(index, Approximate):
        index.measure(None, RECALL)
        return index.save(folder)
    return {"kind": "exact", "rows": len(index)}


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise unknown_name("back-end", kind, KINDS)

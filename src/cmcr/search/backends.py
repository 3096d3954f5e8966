"""The back-ends by name: which for how many rows, made and opened."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import CmcrError, WriteError, missing_dependency
from cmcr.memories.memory import Memory
from cmcr.search.approximate import Approximate, Card, content_hash
from cmcr.search.exact import ExactIndex
from cmcr.search.faiss_index import FaissIndex
from cmcr.search.index import Index
from cmcr.search.lance_index import LanceIndex

_CLASSES: dict[str, type[Approximate]] = {"faiss": FaissIndex, "lancedb": LanceIndex}
KINDS = ("exact", *_CLASSES)
EXACT_ROWS = 2_000_000
"""Up to here exact search of 512 numbers a row takes less than half a second a query on two cores."""


def choose_backend(rows: int) -> str:
    """Choose by the number of rows: "exact", or above `EXACT_ROWS` "faiss" where it is installed."""
    return "faiss" if rows > EXACT_ROWS and find_spec("faiss") else "exact"


def check_installed(kind: str) -> None:
    """Check that a back-end has its library, before hours of work.

    Raises:
        MissingDependencyError: it is not installed.
    """
    if kind in _CLASSES and not find_spec(kind):  # the module has the name of the back-end, and so has the extra
        raise missing_dependency(kind, extra=kind, purpose=f"the index {kind!r}")


def build_backend(kind: str, folder: str | Path, rows: ExactIndex, older: tuple[Path, Card] | None = None) -> Card:
    """Write what an approximate back-end needs beside the memory, measured against exact search.

    Args:
        kind: "faiss" or "lancedb"; exact search needs nothing.
        folder: what is written; of lancedb also the URI of an object store. Nothing may be there.
        rows: the memory with exact search.
        older: folder and card of an index of the first rows, to which the others are added unless that doubles them.

    Returns:
        its card, by which it is opened.

    Raises:
        MissingDependencyError: its library is not installed.
        WriteError: no permission, disk full.
    """
    made, content = _CLASSES[kind], content_hash(rows)
    card = Card(kind=kind, rows=len(rows), content=content, built_rows=len(rows), lists=0)
    try:
        if older and older[1].content == content_hash(rows, older[1].rows) and len(rows) < 2 * older[1].built_rows:
            made.extend(Path(folder), older[0], older[1].rows, rows)
            kept = {"built_rows": older[1].built_rows, "lists": older[1].lists}
        else:
            kept = {"lists": made.create(folder, rows)}
    except CmcrError:
        raise
    except (OSError, RuntimeError) as error:
        raise WriteError(f"{folder}: {kind} could not write it: {error}") from error
    return made(rows, folder, card.model_copy(update=kept)).measured()


def open_backend(
    card: Card | None,
    folder: str | Path,
    memory: Memory,
    extras: NDArray[np.float32] | None,
    order: NDArray[np.integer] | None,
    live: NDArray[np.bool_] | None = None,
) -> Index:
    """Open a back-end over the live rows of a memory: exact search, or by its card what `build_backend` has written.

    Raises:
        MissingDependencyError: its library is not installed.
        IntegrityError: it was made of other rows, or is damaged.
    """
    rows = ExactIndex(memory, extras, order, live)
    return rows if card is None else _CLASSES[card.kind](rows, folder, card)

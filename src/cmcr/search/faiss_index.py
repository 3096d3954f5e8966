"""Search with faiss: rows in clusters, kept in float16, of which a query is compared with the nearest few."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import IntegrityError, missing_dependency
from cmcr.files import read_manifest, write_artefact
from cmcr.search.approximate import RECALL, Approximate, Card, new_card
from cmcr.search.exact import ExactIndex

FORMAT, VERSION, FILE = "cmcr faiss index", 1, "index.faiss"
_ROWS_A_LIST, _SAMPLE_A_LIST = 39, 64  # faiss warns where fewer than 39 rows make a cluster
_BLOCK_ROWS = 8192


def build(
    folder: str | Path, rows: ExactIndex, *, recall: float = RECALL, queries: NDArray[np.float32] | None = None
) -> dict[str, Any]:
    """Write an index over all rows; see `cmcr.search.backends.build_backend`.

    Twice the square root of N clusters are found from 64 rows of each: of a million rows, 128,000 lie in RAM with 1 GiB of
    float16; the rest is streamed.

    Args:
        folder: what is written.
        rows: the memory with exact search.
        recall: of the 10 best rows, reached by probing more clusters.
        queries: `(Q, D + E)` of those who will ask, on which recall is measured; None takes rows.
    """
    faiss = _faiss()
    lists = max(1, min(int(2 * len(rows) ** 0.5), len(rows) // _ROWS_A_LIST))
    chosen = np.sort(np.random.default_rng(0).choice(len(rows), min(len(rows), _SAMPLE_A_LIST * lists), replace=False))
    inner = faiss.METRIC_INNER_PRODUCT
    kept = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(rows.width), rows.width, lists, kept, inner, False)
    index.train(rows.coordinates(chosen))
    _append(index, rows, np.arange(len(rows)))
    found = FaissIndex(rows, new_card("faiss", rows, lists, len(chosen)), index, None)
    found.measure(queries, recall)
    return found.save(folder)


def open_index(folder: str | Path, rows: ExactIndex) -> FaissIndex:
    """Open what `build` has written, after checking its hash; see `cmcr.search.backends.open_backend`."""
    faiss, folder = _faiss(), Path(folder)
    manifest = read_manifest(folder, FORMAT, VERSION, [FILE])
    card = Card.read(manifest["card"], str(folder))
    try:
        # Pages of the file are read as they are needed; faiss has that for no other system.
        index = faiss.read_index(str(folder / FILE), faiss.IO_FLAG_MMAP if os.name == "posix" else 0)
    except RuntimeError as error:
        raise IntegrityError(f"{folder / FILE}: faiss cannot read it. Build the index again.") from error
    return FaissIndex(rows, card, index, folder / FILE)


class FaissIndex(Approximate):
    """An inverted file of faiss over rows and extra coordinates.

    Args:
        rows: the memory with exact search.
        card: of the index.
        index: of faiss.
        file: it is mapped from, and must be read from before rows can be added; None where it is in RAM.
    """

    kind = "faiss"

    def __init__(self, rows: ExactIndex, card: Card, index: Any, file: Path | None) -> None:
        super().__init__(rows, card)
        if (index.ntotal, index.d) != (card.rows, rows.width):
            raise IntegrityError(
                f"{file}: expected {card.rows} rows {rows.width} wide, got {index.ntotal} and {index.d}. Build it again."
            )
        self._index, self._file = index, file

    def candidates(self, queries: NDArray[np.float32], count: int, probes: int) -> NDArray[np.int64]:
        """See `Approximate.candidates`."""
        faiss = _faiss()
        # Variables hold them while C++ has their addresses: faiss keeps no reference itself.
        bits = np.packbits(self.rows.live, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits) if not self.rows.live.all() else None
        options = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        found: NDArray[np.int64] = self._index.search(queries, count, params=options)[1]
        return found

    def take(self, positions: NDArray[np.int64]) -> None:
        """See `Approximate.take`."""
        _append(self._in_ram(), self.rows, positions)

    def save(self, folder: str | Path) -> dict[str, Any]:
        """Write the index with all rows that it holds; an older one is replaced. Returns its card.

        Raises:
            WriteError: no permission, disk full.
        """

        def write(aside: Path) -> None:
            _faiss().write_index(self._in_ram(), str(aside / FILE))

        manifest = {"format": FORMAT, "version": VERSION, "card": self.card.model_dump()}
        write_artefact(Path(folder), manifest, write, replace=True)
        return self.card.model_dump()

    def _in_ram(self) -> Any:
        # A mapped index takes no rows, and what faiss writes of one refers to the file instead of holding its rows.
        if self._file is not None:
            self._index, self._file = _faiss().read_index(str(self._file)), None
        return self._index


def _append(index: Any, rows: ExactIndex, positions: NDArray[np.int64]) -> None:
    for start in range(0, len(positions), _BLOCK_ROWS):
        part = positions[start : start + _BLOCK_ROWS]
        index.add_with_ids(rows.coordinates(part), part)


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError as error:
        raise missing_dependency("faiss-cpu", extra="faiss", purpose="the index 'faiss'") from error
    return faiss

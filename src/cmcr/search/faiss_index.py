"""Search with faiss: rows in clusters, kept in float16, of which a query is compared with the nearest few."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import missing_dependency
from cmcr.files import flush
from cmcr.search.approximate import Approximate, Card, reading_backend
from cmcr.search.exact import ExactIndex

_FILE = "index.faiss"
_ROWS_A_LIST, _SAMPLE_A_LIST = 39, 64  # faiss warns where fewer than 39 rows make a cluster
_BLOCK_ROWS = 8192


class FaissIndex(Approximate):
    """An inverted file of faiss over rows and extra coordinates; rows that are not live are passed over."""

    kind = "faiss"

    def __init__(self, rows: ExactIndex, folder: str | Path, card: Card) -> None:
        super().__init__(rows, folder, card)
        faiss = _faiss()
        with reading_backend(folder):
            # Pages of the file are read as they are needed; faiss has that for no other system.
            flags = faiss.IO_FLAG_MMAP if os.name == "posix" else 0
            self._index = faiss.read_index(str(Path(folder) / _FILE), flags)

    @classmethod
    def create(cls, folder: str | Path, rows: ExactIndex) -> int:
        """Find twice the square root of N clusters from 64 rows of each, some 128,000 of a million; the rest is streamed."""
        faiss = _faiss()
        lists = max(1, min(int(2 * len(rows) ** 0.5), len(rows) // _ROWS_A_LIST))
        drawn = np.random.default_rng(0).choice(len(rows), min(len(rows), _SAMPLE_A_LIST * lists), replace=False)
        inner, kept = faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(rows.width), rows.width, lists, kept, inner, False)
        index.train(rows.coordinates(np.sort(drawn)))
        _write(index, Path(folder), 0, rows)
        return lists

    @classmethod
    def extend(cls, folder: Path, older: Path, first: int, rows: ExactIndex) -> None:
        """See `Approximate.extend`."""
        faiss = _faiss()
        with reading_backend(older):
            index = faiss.read_index(str(older / _FILE))
        _write(index, folder, first, rows)

    def candidates(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """See `Approximate.candidates`."""
        faiss = _faiss()
        # Variables hold them while C++ has their addresses: faiss keeps no reference itself.
        bits = np.packbits(self.rows.live, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits) if not self.rows.live.all() else None
        options = faiss.SearchParametersIVF(nprobe=self.card.probes, sel=selector)
        found: NDArray[np.int64] = self._index.search(queries, count, params=options)[1]
        return found


def _write(index: Any, folder: Path, first: int, rows: ExactIndex) -> None:
    """Add the rows from the first on, and write it all."""
    for start in range(first, len(rows), _BLOCK_ROWS):
        part = np.arange(start, min(start + _BLOCK_ROWS, len(rows)))
        index.add_with_ids(rows.coordinates(part), part)
    folder.mkdir(parents=True)
    _faiss().write_index(index, str(folder / _FILE))
    flush(folder / _FILE)


def _faiss() -> ModuleType:
    try:
        import faiss
    except ImportError as error:
        raise missing_dependency("faiss-cpu", extra="faiss", purpose="the index 'faiss'") from error
    return faiss

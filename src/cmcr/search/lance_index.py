"""Search with LanceDB: a table in a folder or an object store, for those who outgrow one machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import missing_dependency
from cmcr.search.approximate import Approximate, Card, reading_backend
from cmcr.search.exact import ExactIndex

_TABLE = "rows"
_BLOCK_ROWS = 8192
_CLUSTERED = 50_000  # from here on rows are clustered (IVF_FLAT); fewer are compared one and all


class LanceIndex(Approximate):
    """A table of the live rows with their extra coordinates, positions and ids.

    Rows that are added are compared one and all until the index is built again: LanceDB's `optimize`, which would put them
    into clusters, reads what it merges into RAM.
    """

    kind = "lancedb"

    def __init__(self, rows: ExactIndex, folder: str | Path, card: Card) -> None:
        super().__init__(rows, folder, card)
        lancedb = _lancedb()
        with reading_backend(folder):
            self._table = lancedb.connect(str(folder)).open_table(_TABLE)

    @classmethod
    def create(cls, folder: str | Path, rows: ExactIndex) -> int:
        """See `Approximate.create`; the folder may be the URI of one in an object store (`s3://`, `gs://`, `az://`)."""
        database = _lancedb().connect(str(folder))
        table = database.create_table(_TABLE, schema=_batch(rows, np.arange(1)).schema, mode="overwrite")
        _append(table, rows, np.flatnonzero(rows.live))
        lists = int(len(rows) ** 0.5) if len(rows) >= _CLUSTERED else 0
        if lists:
            from lancedb.index import IvfFlat

            table.create_index("vector", config=IvfFlat(distance_type="dot", num_partitions=lists))
        return lists

    @classmethod
    def extend(cls, folder: Path, older: Path, first: int, rows: ExactIndex) -> None:
        """See `Approximate.extend`: rows that are live no more are deleted, those that are again are written anew."""
        lancedb = _lancedb()
        shutil.copytree(older, folder)
        with reading_backend(folder):
            table = lancedb.connect(str(folder)).open_table(_TABLE)
            held = table.search().select(["position"]).to_arrow()["position"].to_numpy()
        gone = held[~rows.live[held]]
        for start in range(0, len(gone), _BLOCK_ROWS):
            table.delete(f"position IN ({', '.join(map(str, gone[start : start + _BLOCK_ROWS]))})")
        _append(table, rows, np.setdiff1d(np.flatnonzero(rows.live), held))

    def candidates(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """See `Approximate.candidates`."""
        search = self._table.search(queries, vector_column_name="vector").distance_type("dot").nprobes(self.card.probes)
        lines = search.select(["position", "_distance"]).limit(count).to_arrow()
        query = lines["query_index"].to_numpy() if len(queries) > 1 else np.zeros(len(lines), dtype=np.int64)
        order = np.argsort(query, kind="stable")
        query = query[order]
        found = np.full((len(queries), count), -1, dtype=np.int64)
        found[query, np.arange(len(query)) - np.searchsorted(query, query)] = lines["position"].to_numpy()[order]
        return found


def _append(table: Any, rows: ExactIndex, positions: NDArray[np.int64]) -> None:
    """Write rows into the table, in one version of it."""
    import pyarrow

    starts = range(0, len(positions), _BLOCK_ROWS)
    batches = (_batch(rows, positions[start : start + _BLOCK_ROWS]) for start in starts)
    table.add(pyarrow.RecordBatchReader.from_batches(_batch(rows, np.arange(1)).schema, batches))


def _batch(rows: ExactIndex, positions: NDArray[np.int64]) -> Any:
    import pyarrow

    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.coordinates(positions).ravel()), rows.width)
    ids = [rows.memory.ids[position] for position in positions]
    return pyarrow.record_batch({"position": positions, "id": ids, "vector": vectors})


def _lancedb() -> ModuleType:
    try:
        import lancedb
    except ImportError as error:
        raise missing_dependency("lancedb", extra="lancedb", purpose="the index 'lancedb'") from error
    return lancedb

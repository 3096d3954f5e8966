"""Search with LanceDB: a table in a folder or an object store, for those who outgrow one machine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import ArtefactNotFoundError, FormatError, IntegrityError, WriteError, missing_dependency
from cmcr.search.approximate import RECALL, Approximate, Card, new_card
from cmcr.search.exact import ExactIndex

_ROWS, _CARD = "rows", "card"  # tables; the card is written last, without it the index is not finished
_BLOCK_ROWS = 8192
INDEX_ROWS = 50_000
"""From here on rows are clustered (IVF_FLAT); fewer are compared one and all."""


def build(
    folder: str | Path,
    rows: ExactIndex,
    *,
    recall: float = RECALL,
    queries: NDArray[np.float32] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    index_rows: int = INDEX_ROWS,
) -> dict[str, Any]:
    """Write a table of all rows, and cluster them if they are many; see `cmcr.search.backends.build_backend`.

    Args:
        folder: a local folder, or the URI of one in an object store (`s3://`, `gs://`, `az://`).
        rows: the memory with exact search.
        recall: of the 10 best rows, reached by probing more clusters.
        queries: `(Q, D + E)` of those who will ask, on which recall is measured; None takes rows.
        columns: path and metadata, one value a row, for other readers of the table; never media. Rows that are added later
            have none.
        index_rows: the fewest rows that are clustered.

    Raises:
        WriteError: no permission, disk full, no connection.
    """
    lists = int(len(rows) ** 0.5) if len(rows) >= index_rows else 0
    card = new_card("lancedb", rows, lists, min(len(rows), 256 * lists))
    try:
        database = _lancedb().connect(str(folder))
        for name in (_CARD, _ROWS):
            database.drop_table(name, ignore_missing=True)
        table = database.create_table(_ROWS, schema=_batch(rows, np.arange(1), columns or {}).schema)
        index = LanceIndex(rows, card, database, table)
        index.append(np.arange(len(rows)), columns or {})
        if lists:
            from lancedb.index import IvfFlat

            table.create_index("vector", config=IvfFlat(distance_type="dot", num_partitions=lists))
    except (OSError, RuntimeError) as error:
        raise WriteError(f"{folder}: LanceDB could not write it: {error}") from error
    index.measure(queries, recall)
    return index.save(folder)


def open_index(folder: str | Path, rows: ExactIndex) -> LanceIndex:
    """Open what `build` has written, at the version of its card; see `cmcr.search.backends.open_backend`."""
    lancedb = _lancedb()
    if "://" not in str(folder) and not Path(folder).is_dir():
        raise ArtefactNotFoundError(2, "there is no lancedb index here", str(folder))
    with _reading(folder):
        database = lancedb.connect(str(folder))
        try:
            saved, table = database.open_table(_CARD), database.open_table(_ROWS)
        except ValueError as error:
            raise FormatError(f"{folder}: not a finished lancedb index. Build it again.") from error
        found = json.loads(saved.to_arrow()["card"][0].as_py())
        table.checkout(found.pop("version"))
        held = table.count_rows()
    card = Card.read(found, str(folder))
    if held > card.rows:
        raise IntegrityError(f"{folder}: expected at most {card.rows} rows, got {held}. Build it again.")
    return LanceIndex(rows, card, database, table)


class LanceIndex(Approximate):
    """A table of rows with their extra coordinates, positions and ids.

    Rows that are added are compared one and all until the index is built again: LanceDB's `optimize`, which would put them
    into clusters, reads what it merges into RAM.

    Args:
        rows: the memory with exact search.
        card: of the index.
        database, table: of LanceDB.
    """

    kind = "lancedb"

    def __init__(self, rows: ExactIndex, card: Card, database: Any, table: Any) -> None:
        super().__init__(rows, card)
        self._database, self._table = database, table

    def candidates(self, queries: NDArray[np.float32], count: int, probes: int) -> NDArray[np.int64]:
        """See `Approximate.candidates`."""
        with _reading(self._database.uri):
            search = self._table.search(queries, vector_column_name="vector").distance_type("dot").nprobes(probes)
            lines = search.select(["position", "_distance"]).limit(count).to_arrow()
        query = lines["query_index"].to_numpy() if len(queries) > 1 else np.zeros(len(lines), dtype=np.int64)
        order = np.argsort(query, kind="stable")
        query = query[order]
        found = np.full((len(queries), count), -1, dtype=np.int64)
        found[query, np.arange(len(query)) - np.searchsorted(query, query)] = lines["position"].to_numpy()[order]
        return found

    def take(self, positions: NDArray[np.int64]) -> None:
        """See `Approximate.take`."""
        self._table.checkout_latest()
        self.append(positions, {})

    def add(self, rows: Sequence[int] | NDArray[np.int64]) -> None:
        """See `Approximate.add`."""
        super().add(rows)
        back = np.setdiff1d(rows, self._held())
        if len(back):
            self.take(back)

    def append(self, positions: NDArray[np.int64], columns: Mapping[str, Sequence[Any]]) -> None:
        """Write rows into the table, in one version of it."""
        import pyarrow

        starts = range(0, len(positions), _BLOCK_ROWS)
        batches = (_batch(self.rows, positions[start : start + _BLOCK_ROWS], columns) for start in starts)
        self._table.add(
            pyarrow.RecordBatchReader.from_batches(_batch(self.rows, positions[:1], columns).schema, batches)
        )

    def save(self, folder: str | Path) -> dict[str, Any]:
        """Delete what was dropped, and write the card, in which the table's version stands: readers of others go on."""
        import pyarrow

        self._table.checkout_latest()
        held = self._held()
        gone = held[~self.rows.live[held]]
        for start in range(0, len(gone), _BLOCK_ROWS):
            self._table.delete(f"position IN ({', '.join(map(str, gone[start : start + _BLOCK_ROWS]))})")
        card = self.card.model_dump()
        line = pyarrow.table({"card": [json.dumps({**card, "version": self._table.version})]})
        try:
            self._database.open_table(_CARD).add(line, mode="overwrite")
        except ValueError:  # there is none yet
            self._database.create_table(_CARD, line)
        return card

    def _held(self) -> NDArray[np.int64]:
        positions: NDArray[np.int64] = self._table.search().select(["position"]).to_arrow()["position"].to_numpy()
        return positions


def _batch(rows: ExactIndex, positions: NDArray[np.int64], columns: Mapping[str, Sequence[Any]]) -> Any:
    import pyarrow

    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.coordinates(positions).ravel()), rows.width)
    kept = {name: [values[position] for position in positions] for name, values in columns.items()}
    ids = [rows.memory.ids[position] for position in positions]
    return pyarrow.record_batch({"position": positions, "id": ids, "vector": vectors, **kept})


@contextmanager
def _reading(folder: object) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise IntegrityError(f"{folder}: LanceDB cannot read it ({error!s:.200}). Build it again.") from error


def _lancedb() -> ModuleType:
    try:
        import lancedb
    except ImportError as error:
        raise missing_dependency("lancedb", extra="lancedb", purpose="the index 'lancedb'") from error
    return lancedb

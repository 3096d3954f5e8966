"""What back-ends that may miss a row have in common: candidates are theirs, the rest is exact, and a card says how good."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cmcr.errors import IntegrityError
from cmcr.files import Count, StrictRecord
from cmcr.search.exact import ExactIndex
from cmcr.search.index import Found

RECALL = 0.98
_MORE = 32  # candidates beyond k: their order is that of float16 until they are compared exactly
_ASKED, _DEPTH = 128, 10


class Card(StrictRecord):
    """What an index was made of, and how good it was found to be.

    Attributes:
        kind: of back-end.
        rows: how many of the memory it was made of.
        content: hash of these rows and their extra coordinates.
        built_rows: how many they were when the clusters were found; others were added to them.
        lists: clusters of rows, 0 where every row is compared.
        probes: clusters that a query is compared with.
        recall_at_10: how many of the 10 best rows it finds, of exact search, 0 to 1.
        queries: for how many queries that was measured.
    """

    kind: Annotated[str, Field(pattern="^(faiss|lancedb)$")]
    rows: Count
    content: str
    built_rows: Count
    lists: Count
    probes: Annotated[Count, Field(ge=1)] = 1
    recall_at_10: Annotated[float, Field(ge=0, le=1)] = 1.0
    queries: Count = 0


class Approximate(ABC):
    """An index that gives candidates; scores and the answers under a filter are exact.

    Args:
        rows: the memory with exact search.
        folder: where its files are.
        card: of the index.

    Attributes:
        kind, exact, width: as of `cmcr.search.index.Index`.

    Raises:
        IntegrityError: the rows or their extra coordinates are not those that it was made of, or its files are damaged.
    """

    kind: str
    exact = False

    def __init__(self, rows: ExactIndex, folder: str | Path, card: Card) -> None:
        self.rows, self.folder, self.card, self.width = rows, folder, card, rows.width
        self._live = int(np.count_nonzero(rows.live))
        if card.rows != len(rows) or card.content != content_hash(rows):
            raise IntegrityError(
                f"{rows.memory}: its rows or their extra coordinates have changed since the {card.kind} index was made of "
                f"{card.rows} of them. Run cmcr index again."
            )

    @classmethod
    @abstractmethod
    def create(cls, folder: str | Path, rows: ExactIndex) -> int:
        """Write an index of all rows; returns how many clusters it has."""

    @classmethod
    @abstractmethod
    def extend(cls, folder: Path, older: Path, first: int, rows: ExactIndex) -> None:
        """Write an older index, made of the rows before the first, with those from there on."""

    @abstractmethod
    def candidates(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Find about `count` good rows for each query in its nearest clusters: `(Q, count)`, -1 where there are fewer."""

    def __len__(self) -> int:
        return len(self.rows)

    def search(self, queries: NDArray[np.float32], k: int, *, allowed: NDArray[np.bool_] | None = None) -> Found:
        """Find rows with large inner products; see `Index.search`. Under a filter, and where too few are found, exactly."""
        given, depth = self.rows.checked(queries, k), min(k, self._live)
        if allowed is not None or not len(given) or not depth:
            return self.rows.search(given, k, allowed=allowed)
        with reading_backend(self.folder):
            found = self.candidates(given, min(depth + _MORE, len(self)))
        found[(found >= 0) & ~self.rows.live[found]] = -1
        if ((found >= 0).sum(axis=1) < depth).any():
            return self.rows.search(given, k)
        return self.rows.best_of(given, found, depth)

    def measured(self) -> Card:
        """Raise the number of probes until enough of the 10 best rows are found of rows that ask, themselves left out."""
        live = np.flatnonzero(self.rows.live)
        queries = self.rows.coordinates(np.random.default_rng(0).choice(live, min(_ASKED, len(live)), replace=False))
        queries[:, self.rows.memory.width :] = 0
        depth = min(_DEPTH + 1, len(live))
        if depth < 2:
            return self.card
        enough = self.rows.search(queries, depth)[0][:, -1:] - self.rows.rounding
        probes = max(1, self.card.lists // 64)
        while True:
            self.card = self.card.model_copy(update={"probes": probes})
            good = np.count_nonzero(self.search(queries, depth)[0] >= enough, axis=1) - 1
            reached = float(good.clip(0).mean() / (depth - 1))
            if reached >= RECALL or probes >= self.card.lists:
                return self.card.model_copy(update={"recall_at_10": round(reached, 4), "queries": len(queries)})
            probes = min(2 * probes, self.card.lists)


def content_hash(rows: ExactIndex, count: int | None = None) -> str:
    """Hash the first rows, all if None, and their extra coordinates."""
    extras = np.ascontiguousarray(rows.extras[:count])
    return hashlib.sha256(rows.memory.digest(count).encode() + extras.tobytes()).hexdigest()


@contextmanager
def reading_backend(folder: str | Path) -> Iterator[None]:
    """Turn what libraries raise over damaged files into an `IntegrityError`."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise IntegrityError(f"{folder}: cannot be read ({error!s:.200}). Run cmcr index again.") from error

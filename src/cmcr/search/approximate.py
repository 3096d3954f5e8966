"""What back-ends that may miss a row have in common: candidates are theirs, the rest is exact, and a card says how good."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from cmcr.errors import ConfigError, FormatError, IntegrityError, validation_problems
from cmcr.search.exact import ExactIndex
from cmcr.search.index import Found

RECALL = 0.98
_MORE = 32  # candidates beyond k: their order is that of float16 until they are compared exactly
_ASKED, _DEPTH = 128, 10


class Card(BaseModel):
    """What an index was made of, and how good it was found to be.

    Attributes:
        kind: of back-end.
        rows: how many of the memory it holds, from the first.
        memory: hash of these rows.
        extras: hash of their extra coordinates.
        lists: clusters of rows, 0 where every row is compared.
        sample: rows from which the clusters were found.
        probes: clusters that a query is compared with.
        recall_at_10: how many of the 10 best rows it finds, of exact search, 0 to 1.
        queries: for how many queries that was measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    rows: int
    memory: str
    extras: str
    lists: int
    sample: int
    probes: int = 1
    recall_at_10: float = 0.0
    queries: int = 0

    @staticmethod
    def read(found: dict[str, Any], where: str) -> Card:
        """Check a card that was read from somewhere; raises FormatError."""
        try:
            return Card(**found)
        except ValidationError as error:
            raise FormatError(
                f"{where}: not a usable card ({validation_problems(error)}). Build the index again."
            ) from error


class Approximate(ABC):
    """An index that gives candidates; scores and the answers under a filter are exact.

    Dropped rows stay in the files until the index is built again or saved by a back-end that can delete.

    Args:
        rows: the memory with exact search.
        card: of the index.

    Attributes:
        kind, exact, width: as of `cmcr.search.index.Index`.
        card: with what was measured.

    Raises:
        IntegrityError: the memory's rows or their extra coordinates are not those that the index was made of.
    """

    kind: str
    exact = False

    def __init__(self, rows: ExactIndex, card: Card) -> None:
        self.rows, self.card, self.width = rows, card, rows.width
        if (card.memory, card.extras) != hashes_of(rows, card.rows) or card.rows > len(rows):
            raise IntegrityError(
                f"{rows.memory}: its rows or their extra coordinates have changed since the {card.kind} index was made of "
                f"{card.rows} of them. Run cmcr index again."
            )
        rows.drop(np.arange(card.rows, len(rows)))

    def __len__(self) -> int:
        return self.card.rows

    def search(self, queries: NDArray[np.float32], k: int, *, allowed: NDArray[np.bool_] | None = None) -> Found:
        """Find rows with large inner products; see `Index.search`. Under a filter, and where too few are found, exactly."""
        given = self.rows.checked(queries, k)
        depth = min(k, int(np.count_nonzero(self.rows.live)))
        if allowed is not None or not len(given) or not depth:
            return self.rows.search(given, k, allowed=allowed)
        scores, positions, unsure = self._approximate(given, depth)
        if unsure.any():
            scores[unsure], positions[unsure] = self.rows.search(given[unsure], depth)
        return scores, positions

    def add(self, rows: Sequence[int] | NDArray[np.int64]) -> None:
        """Take in rows; see `Index.add`. Those that the index never held must be the next ones of the memory.

        Raises:
            ConfigError: they are not.
        """
        positions = np.unique(np.asarray(rows, dtype=np.int64))
        new = positions[positions >= self.card.rows]
        if not np.array_equal(new, np.arange(self.card.rows, self.card.rows + len(new))):
            raise ConfigError(f"expected the rows from {self.card.rows} on, which are new, got {new[:3]} and others.")
        if len(new):
            self.take(new)
            count = self.card.rows + len(new)
            memory, extras = hashes_of(self.rows, count)
            self.card = self.card.model_copy(update={"rows": count, "memory": memory, "extras": extras})
        self.rows.add(positions)

    def drop(self, rows: Sequence[int] | NDArray[np.int64]) -> None:
        """Take out rows; see `Index.drop`."""
        self.rows.drop(rows)

    @abstractmethod
    def candidates(self, queries: NDArray[np.float32], count: int, probes: int) -> NDArray[np.int64]:
        """Find about `count` good rows for each query in its `probes` nearest clusters: `(Q, c)`, -1 where there are fewer."""

    @abstractmethod
    def take(self, positions: NDArray[np.int64]) -> None:
        """Take in the next rows."""

    @abstractmethod
    def save(self, folder: str | Path) -> dict[str, Any]:
        """Write what has changed. Returns the card."""

    def measure(self, queries: NDArray[np.float32] | None, recall: float) -> None:
        """Raise the number of probes until enough of the 10 best rows are found, and put into the card how many are.

        Args:
            queries: `(Q, D + E)`, of those who will ask; None takes rows, each of which is not looked for itself.
            recall: from 0 to 1; all clusters are probed where fewer do not reach it.
        """
        itself = int(queries is None)
        if not self.rows.live.any():
            return
        if queries is None:
            live = np.flatnonzero(self.rows.live)
            queries = self.rows.coordinates(
                np.random.default_rng(0).choice(live, min(_ASKED, len(live)), replace=False)
            )
            queries[:, self.rows.memory.width :] = 0
        depth = min(_DEPTH + itself, int(np.count_nonzero(self.rows.live)))
        probes = max(1, self.card.lists // 64)
        enough = self.rows.search(queries, depth)[0][:, -1:] - self.rows.rounding
        while True:
            self.card = self.card.model_copy(update={"probes": probes, "queries": len(queries)})
            good = np.count_nonzero(self._approximate(queries, depth)[0] >= enough, axis=1) - itself
            reached = float(good.clip(0).mean() / (depth - itself)) if depth > itself else 1.0
            if reached >= recall or probes >= self.card.lists:
                break
            probes = min(2 * probes, self.card.lists)
        self.card = self.card.model_copy(update={"recall_at_10": round(reached, 4)})

    def _approximate(
        self, queries: NDArray[np.float32], depth: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
        """Compare the candidates of each query; the last returned tells for which of them `(Q,)` that is not enough."""
        found = self.candidates(queries, min(depth + _MORE, len(self)), self.card.probes)
        found[(found >= 0) & ~self.rows.live[found]] = -1
        counts = (found >= 0).sum(axis=1)
        unsure = counts < depth
        scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
        positions = np.full((len(queries), depth), -1, dtype=np.int64)
        if not unsure.all():
            best, places = self.rows.best_of(queries[~unsure], found[~unsure], int(counts[~unsure].min()))
            scores[~unsure], positions[~unsure] = best[:, :depth], places[:, :depth]
            # Where all candidates beyond the last are its equals, there may be others that should come first.
            unsure[~unsure] = best[:, -1] == best[:, depth - 1]
        return scores, positions, unsure


def hashes_of(rows: ExactIndex, count: int) -> tuple[str, str]:
    """Hash the first rows, and their extra coordinates."""
    return rows.memory.digest(count), hashlib.sha256(np.ascontiguousarray(rows.extras[:count]).tobytes()).hexdigest()


def new_card(kind: str, rows: ExactIndex, lists: int, sample: int) -> Card:
    """Write the card of an index over all rows, before anything is measured."""
    memory, extras = hashes_of(rows, len(rows))
    return Card(kind=kind, rows=len(rows), memory=memory, extras=extras, lists=lists, sample=sample)

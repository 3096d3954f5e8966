"""Retrieval across a connection, and what connecting cost each space of its own: both are pairs that must find each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError
from cmcr.evaluation.datasets.records import RetrievalRecord
from cmcr.evaluation.metrics import PerQuery, positive_ranks, retrieval_scores
from cmcr.evaluation.tasks.embedding import (
    Embedded,
    Progress,
    crossing_spaces,
    embed_items,
    encoder_for,
    shared_space,
)
from cmcr.evaluation.tasks.scores import MeanOfTwo, PerItem, Scores
from cmcr.evaluation.tasks.ways import Way


@dataclass(frozen=True)
class PreparedPairs:
    """Pairs, embedded.

    Attributes:
        first: embeddings of the first modality.
        second: of the second.
        positives: from rows of `first` to rows of `second`.
    """

    first: Embedded
    second: Embedded
    positives: PerQuery

    @property
    def failed(self) -> int:
        """Items that could not be embedded."""
        return len(self.first.failed) + len(self.second.failed)

    def score(self, way: Way) -> Scores:
        """Rank either modality by the other.

        Returns:
            hit rates, true recalls, mAP, MRR and nDCG of both directions, and the means of both under `mean/`.
        """
        rows = way.rows(self.first), way.rows(self.second)
        names = f"{self.first.modality}_to_{self.second.modality}", f"{self.second.modality}_to_{self.first.modality}"
        there = retrieval_scores(names[0], positive_ranks(rows[0], rows[1], self.positives))
        turned = turned_positives(self.positives, len(rows[1]))
        searchable = turned.rows
        back = retrieval_scores(names[1], positive_ranks(rows[1][searchable], rows[0], turned.positives))
        partners = _partners(self.positives, turned)
        means = {key: _mean(there[key], values, partners) for key, values in _renamed(back, names).items()}
        return {
            **{key: PerItem(values) for key, values in {**there, **back}.items()},
            **{f"mean/{key.split('/')[1]}": mean for key, mean in means.items()},
        }


@dataclass(frozen=True)
class Turned:
    """Positives in the other direction.

    Attributes:
        rows: `(R,)` rows of the second modality that have a positive at all.
        positives: of each of them, rows of the first.
    """

    rows: NDArray[np.int64]
    positives: PerQuery


def turned_positives(positives: PerQuery, second: int) -> Turned:
    """Turn positives of the first modality into those of the second, of which there are `second` rows."""
    queries = np.repeat(np.arange(len(positives)), positives.counts)
    order = np.argsort(positives.values, kind="stable")
    counts = np.bincount(positives.values, minlength=second)
    rows = np.flatnonzero(counts)
    return Turned(rows, PerQuery(queries[order], np.concatenate([[0], np.cumsum(counts[rows])])))


@dataclass(frozen=True)
class PairsTask:
    """Find the partner of every item among all items of the other modality.

    Attributes:
        name: of the task.
        within: compare within one space of the connection, which embeds both modalities itself: the retention task.
    """

    name: str
    within: bool = False

    def prepare(self, connection: Connection, record: RetrievalRecord, progress: Progress) -> PreparedPairs:
        """Embed both modalities.

        Raises:
            ConfigError: the connection does not have both, or nothing is left to compare.
        """
        first, second = record.modalities
        find = _twice(shared_space) if self.within else crossing_spaces
        spaces = find(connection, first, second)
        embedded = []
        for modality, space, items in zip(record.modalities, spaces, (record.first, record.second), strict=True):
            encoder = encoder_for(connection, modality, space)
            report = _reporter(progress, f"{modality} in {space}")
            embedded.append(embed_items(encoder, modality, items, progress=report))
        return _matched(embedded[0], embedded[1], record.positives)


def _renamed(back: Mapping[str, NDArray[np.float64]], names: tuple[str, str]) -> dict[str, NDArray[np.float64]]:
    return {key.replace(names[1], names[0]): values for key, values in back.items()}


def _partners(positives: PerQuery, turned: Turned) -> NDArray[np.int64] | None:
    """Give each query's place among `turned.rows`, `(Q,)`, where every item has one partner; else None."""
    if len(positives.values) == len(positives) == len(turned.rows):
        return np.searchsorted(turned.rows, positives.values)
    return None


def _mean(
    there: NDArray[np.float64], back: NDArray[np.float64], partners: NDArray[np.int64] | None
) -> PerItem | MeanOfTwo:
    """Average both directions, pair by pair where every item has one partner."""
    return MeanOfTwo(there, back) if partners is None else PerItem((there + back[partners]) / 2)


def _matched(first: Embedded, second: Embedded, positives: PerQuery) -> PreparedPairs:
    """Keep the positives whose items could be embedded, and the queries that have one left."""
    place = {int(item): row for row, item in enumerate(second.kept)}
    lists = []
    rows = []
    for row, item in enumerate(first.kept):
        given = positives.values[positives.starts[item] : positives.starts[item + 1]]
        left = [place[int(positive)] for positive in given if int(positive) in place]
        if left:
            rows.append(row)
            lists.append(left)
    if not rows:
        raise ConfigError("no pair is left of which both items could be embedded.")
    kept = Embedded(first.space, first.modality, first.rows[rows], first.kept[rows], first.failed)
    return PreparedPairs(kept, second, PerQuery.several(lists))


def _twice(find: Callable[[Connection, str, str], str]) -> Callable[[Connection, str, str], tuple[str, str]]:
    return lambda connection, first, second: (find(connection, first, second),) * 2


def _reporter(progress: Progress, what: str) -> Callable[[float], None]:
    return lambda share: progress(what, share)

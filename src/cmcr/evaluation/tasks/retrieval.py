"""Retrieval: find the partner of every item among all items of the other modality, in both directions.

Within one space the same measures retention, what connecting cost that space: before and after its projector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError
from cmcr.evaluation.baselines import Method
from cmcr.evaluation.datasets.records import RetrievalRecord
from cmcr.evaluation.metrics import PerQuery, expected_scores, positive_ranks, retrieval_scores
from cmcr.evaluation.tasks.embedding import Embedded, embed_items, spaces_for
from cmcr.evaluation.tasks.scores import Known, MeanOfTwo, PerItem, Score, Scores
from cmcr.progress import Progress


@dataclass(frozen=True)
class PreparedRetrieval:
    """Two modalities, embedded.

    Attributes:
        first: embeddings of the first modality.
        second: of the second.
        positives: rows of `second` that belong to each row of `first`.
    """

    first: Embedded
    second: Embedded
    positives: PerQuery

    @property
    def failed(self) -> int:
        """Items that could not be embedded."""
        return len(self.first.failed) + len(self.second.failed)

    def score(self, method: Method) -> Scores:
        """Rank either modality by the other.

        Returns:
            hit rates, true recalls, mAP, MRR and nDCG of both directions, and the means of both under `mean/`.
        """
        first, second = method(self.first), method(self.second)
        asked, back_positives = turned(self.positives, len(second))
        there = retrieval_scores(self._names[0], positive_ranks(first, second, self.positives))
        back = retrieval_scores(self._names[1], positive_ranks(second[asked], first, back_positives))
        clusters = components(self.positives, len(second))
        ours = {key: PerItem(values, clusters[0]) for key, values in there.items()}
        theirs = {key: PerItem(values, clusters[1][asked]) for key, values in back.items()}
        scores: dict[str, Score] = {**ours, **theirs}
        paired = len(self.positives.values) == len(self.positives) == len(asked)  # every item has one partner
        for (key, one), other in zip(ours.items(), theirs.values(), strict=True):
            mean: Score = MeanOfTwo(one, other)
            if paired:
                partners = other.values[np.searchsorted(asked, self.positives.values)]
                mean = PerItem((one.values + partners) / 2)
            scores[f"mean/{key.split('/')[1]}"] = mean
        return scores

    def chance(self, seed: int) -> Scores:
        """Give what random orders score on average, exactly."""
        _, back_positives = turned(self.positives, len(self.second.rows))
        there = expected_scores(self._names[0], self.positives.counts, len(self.second.rows))
        back = expected_scores(self._names[1], back_positives.counts, len(self.first.rows))
        found = {key: Known(float(values.mean()), len(values)) for key, values in {**there, **back}.items()}
        for one, other in zip(there, back, strict=True):
            found[f"mean/{one.split('/')[1]}"] = Known((found[one].value + found[other].value) / 2, found[one].n)
        return found

    @property
    def _names(self) -> tuple[str, str]:
        first, second = self.first.modality, self.second.modality
        return f"{first}_to_{second}", f"{second}_to_{first}"


def prepare(
    connection: Connection, record: RetrievalRecord, progress: Progress, *, within: bool = False
) -> PreparedRetrieval:
    """Embed both modalities.

    Args:
        connection: with its encoders attached.
        record: the data set.
        progress: see `Progress`.
        within: in one space, which has both modalities itself (retention); else across the connection.

    Raises:
        NotConnectedError: the connection does not have both modalities.
        ConfigError: encoders that are not attached, or no pair is left.
    """
    spaces = spaces_for(connection, *record.modalities, within=within)
    first, second = (
        embed_items(connection, space, modality, items, progress)
        for space, modality, items in zip(spaces, record.modalities, (record.first, record.second), strict=True)
    )
    row_of = {int(item): row for row, item in enumerate(second.kept)}
    given = np.split(record.positives.values, record.positives.starts[1:-1])
    partners = [[row_of[item] for item in given[query].tolist() if item in row_of] for query in first.kept]
    asked = [row for row, left in enumerate(partners) if left]
    if not asked:
        raise ConfigError("no pair is left of which both items could be embedded.")
    # What nobody asks for stays among the second items, as a distractor.
    return PreparedRetrieval(first.only(asked), second, PerQuery.several([partners[row] for row in asked]))


def turned(positives: PerQuery, second: int) -> tuple[NDArray[np.int64], PerQuery]:
    """Turn positives around.

    Args:
        positives: of each first item, rows of the second ones.
        second: number of second items.

    Returns:
        `(R,)` rows of the second items that have a positive at all, and for each of them its first items.
    """
    queries = np.repeat(np.arange(len(positives)), positives.counts)
    order = np.argsort(positives.values, kind="stable")
    counts = np.bincount(positives.values, minlength=second)
    asked = np.flatnonzero(counts)
    return asked, PerQuery(queries[order], np.concatenate([[0], np.cumsum(counts[asked])]))


def components(positives: PerQuery, second: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number what belongs together: a picture and all its captions, and whatever shares one of them, are one cluster.

    Returns:
        `(Q,)` cluster of each first item, and `(second,)` of each second one.
    """
    first = len(positives)
    queries = np.repeat(np.arange(first), positives.counts)
    links = (np.ones(len(queries), dtype=bool), (queries, first + positives.values))
    _, labels = connected_components(coo_array(links, shape=(first + second, first + second)), directed=False)
    return labels[:first], labels[first:]

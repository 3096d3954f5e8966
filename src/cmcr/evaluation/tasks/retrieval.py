"""Retrieval: find the partner of every item among all items of the other modality, in both directions.

Within one space the same measures retention, what connecting cost that space: before and after its projector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError
from cmcr.evaluation.baselines import Method
from cmcr.evaluation.datasets.records import RetrievalRecord
from cmcr.evaluation.metrics import PerQuery, positive_ranks, retrieval_scores
from cmcr.evaluation.tasks.embedding import Embedded, Progress, embed_items, spaces_for
from cmcr.evaluation.tasks.scores import MeanOfTwo, PerItem, Scores


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
        there_name = f"{self.first.modality}_to_{self.second.modality}"
        back_name = f"{self.second.modality}_to_{self.first.modality}"
        there = retrieval_scores(there_name, positive_ranks(first, second, self.positives))
        asked, positives = turned(self.positives, len(second))
        back = retrieval_scores(back_name, positive_ranks(second[asked], first, positives))
        scores: dict[str, PerItem | MeanOfTwo] = {key: PerItem(values) for key, values in {**there, **back}.items()}
        paired = len(self.positives.values) == len(self.positives) == len(asked)  # every item has one partner
        for (key, ours), theirs in zip(there.items(), back.values(), strict=True):
            partners = theirs[np.searchsorted(asked, self.positives.values)] if paired else None
            mean = MeanOfTwo(ours, theirs) if partners is None else PerItem((ours + partners) / 2)
            scores[f"mean/{key.split('/')[1]}"] = mean
        return scores


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

"""Zero-shot classification: an item's class is the one whose description in words lies nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError, unknown_name
from cmcr.evaluation.baselines import Method
from cmcr.evaluation.datasets.records import ClassificationRecord
from cmcr.evaluation.metrics import PerQuery, hits, positive_ranks
from cmcr.evaluation.prompts import TEMPLATES, prompts_of
from cmcr.evaluation.tasks.embedding import Embedded, embed_items, spaces_for
from cmcr.evaluation.tasks.scores import Known, PerItem, Scores
from cmcr.progress import Progress

TOPS = (1, 3, 5)


@dataclass(frozen=True)
class PreparedClassification:
    """Items and the prompts of all classes, embedded.

    Attributes:
        items: embeddings of the items.
        prompts: embeddings of all prompts, class after class.
        counts: `(c,)` prompts a class.
        labels: `(n,)` class of each embedded item.
    """

    items: Embedded
    prompts: Embedded
    counts: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def failed(self) -> int:
        """Items that could not be embedded."""
        return len(self.items.failed)

    def chance(self, seed: int) -> Scores:
        """Give what guessing scores: k of c classes, exactly."""
        classes, name, n = len(self.counts), self.items.modality, len(self.labels)
        scores = {f"{name}/top-{k}": Known(min(k, classes) / classes, n) for k in TOPS}
        return {**scores, f"{name}/class_mean_top-1": Known(1 / classes, len(np.unique(self.labels)))}

    def score(self, method: Method) -> Scores:
        """Give top-k accuracy over all items, and the mean over classes of top-1.

        A class is the mean of its prompts' rows, taken where they are compared and scaled to length one again.
        """
        means = unit_means(method(self.prompts), self.counts)
        ranks = positive_ranks(method(self.items), means, PerQuery.one(self.labels))
        _, class_of = np.unique(self.labels, return_inverse=True)  # classes without items do not count
        by_class = np.bincount(class_of, weights=hits(ranks, 1)) / np.bincount(class_of)
        name = self.items.modality
        scores = {f"{name}/top-{k}": PerItem(hits(ranks, k).astype(np.float64)) for k in TOPS}
        return {**scores, f"{name}/class_mean_top-1": PerItem(by_class)}


def prepare(
    connection: Connection,
    record: ClassificationRecord,
    progress: Progress,
    prompts: Sequence[Sequence[str]] | None = None,
) -> PreparedClassification:
    """Embed the items, and the prompts of every class with the text encoder of the other space.

    Args:
        connection: with its encoders attached.
        record: the data set.
        progress: see `Progress`.
        prompts: by class; None takes cmcr's own ensemble for the modality.

    Raises:
        NotConnectedError: the connection does not have both modalities.
        ConfigError: encoders that are not attached, a class without prompts, or a prompt that cannot be embedded.
    """
    if prompts is None:
        if record.modality not in TEMPLATES:
            raise unknown_name("modality with prompts", record.modality, TEMPLATES)
        prompts = [prompts_of(name, TEMPLATES[record.modality]) for name in record.classes]
    counts = np.array([len(of_class) for of_class in prompts])
    if len(counts) != len(record.classes) or not counts.all():
        raise ConfigError(
            f"{record.name}: expected prompts of {len(record.classes)} classes, at least one each, got those of "
            f"{np.count_nonzero(counts)}."
        )
    item_space, text_space = spaces_for(connection, record.modality, "text")
    items = embed_items(connection, item_space, record.modality, record.items, progress)
    texts = [prompt for of_class in prompts for prompt in of_class]
    embedded = embed_items(connection, text_space, "text", texts, progress, "prompts")
    if embedded.failed:
        raise ConfigError(f"a prompt cannot be embedded: {next(iter(embedded.failed.values()))}")
    return PreparedClassification(items, embedded, counts, record.labels[items.kept])


def unit_means(rows: NDArray[np.floating], counts: NDArray[np.int64]) -> NDArray[np.floating]:
    """Average consecutive groups of rows `(n, K)`, of `counts` `(c,)` rows each, and scale the means to length one."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sums = np.add.reduceat(rows, starts, axis=0)
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)  # a projector's ReLU may leave zeros

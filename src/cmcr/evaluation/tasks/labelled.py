"""Zero-shot classification: an item's class is the one whose description in words lies nearest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError
from cmcr.evaluation.datasets.records import ClassificationRecord
from cmcr.evaluation.metrics import answer_ranks, hits
from cmcr.evaluation.prompts import prompts_of, templates_for
from cmcr.evaluation.tasks.embedding import Embedded, Progress, crossing_spaces, embed_items, encoder_for
from cmcr.evaluation.tasks.scores import PerItem, Scores
from cmcr.evaluation.tasks.ways import Way, unit_mean

TOPS = (1, 3, 5)


@dataclass(frozen=True)
class PreparedLabelled:
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

    def score(self, way: Way) -> Scores:
        """Give top-k accuracy over all items, and the mean over classes of top-1.

        A class is the mean of its prompts' rows, taken after they were made comparable and scaled to length one again.
        """
        classes = unit_mean(way.rows(self.prompts), self.counts)
        ranks = answer_ranks(way.rows(self.items), classes, self.labels)
        name = self.items.modality
        scores = {f"{name}/top-{k}": PerItem(hits(ranks, k).astype(np.float64)) for k in TOPS}
        present, each = np.unique(self.labels, return_inverse=True)
        right = np.bincount(each, weights=ranks <= 1) / np.bincount(each)
        scores[f"{name}/class_mean_top-1"] = PerItem(right[: len(present)])
        return scores


@dataclass(frozen=True)
class LabelledTask:
    """Name the class of every item.

    Attributes:
        name: of the task.
        prompts: by class; None takes cmcr's own ensemble for the modality.
    """

    name: str
    prompts: Sequence[Sequence[str]] | None = None

    def prepare(self, connection: Connection, record: ClassificationRecord, progress: Progress) -> PreparedLabelled:
        """Embed the items, and the prompts of every class with the text encoder of the other space.

        Raises:
            ConfigError: the connection does not have both modalities, a class without prompts, or a prompt that cannot be
                embedded.
        """
        prompts = self.prompts
        if prompts is None:
            templates = templates_for(record.modality)
            prompts = [prompts_of(name, templates) for name in record.classes]
        _check_prompts(record, prompts)
        item_space, text_space = crossing_spaces(connection, record.modality, "text")
        items = embed_items(
            encoder_for(connection, record.modality, item_space),
            record.modality,
            record.items,
            progress=lambda share: progress(f"{record.modality} in {item_space}", share),
        )
        texts = embed_items(
            encoder_for(connection, "text", text_space),
            "text",
            [prompt for group in prompts for prompt in group],
            progress=lambda share: progress(f"prompts in {text_space}", share),
        )
        if texts.failed:
            raise ConfigError(f"a prompt cannot be embedded: {next(iter(texts.failed.values()))}")
        counts = np.array([len(group) for group in prompts])
        return PreparedLabelled(items, texts, counts, record.labels[items.kept])


def _check_prompts(record: ClassificationRecord, prompts: Sequence[Sequence[str]]) -> None:
    if len(prompts) != len(record.classes):
        raise ConfigError(
            f"{record.name}: expected prompts of {len(record.classes)} classes, got those of {len(prompts)}."
        )
    for name, group in zip(record.classes, prompts, strict=True):
        if not group:
            raise ConfigError(f"{record.name}: class {name!r} has no prompts; give at least one to each.")

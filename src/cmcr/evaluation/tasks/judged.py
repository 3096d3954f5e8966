"""Counterfactual recognition: is what sounds in the picture? The cosine is how sure the connection is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError
from cmcr.evaluation.datasets.records import CounterfactualRecord
from cmcr.evaluation.detection import average_precision, max_f1
from cmcr.evaluation.tasks.embedding import Embedded, Progress, crossing_spaces, embed_items, encoder_for
from cmcr.evaluation.tasks.scores import OfAll, Scores
from cmcr.evaluation.tasks.ways import Way


@dataclass(frozen=True)
class PreparedJudged:
    """Pictures and sounds, embedded.

    Attributes:
        images: embeddings of the pictures, `(n, D)`.
        sounds: of the sounds, row i belongs to picture i.
        present: `(n,)` whether the sounding object is in the picture.
        failed: pairs of which one item could not be embedded.
    """

    images: Embedded
    sounds: Embedded
    present: NDArray[np.bool_]
    failed: int

    def score(self, way: Way) -> Scores:
        """Give average precision and the best F1 of telling pairs whose sound is in the picture."""
        confidence = (way.rows(self.images) * way.rows(self.sounds)).sum(axis=1)

        def precision(chosen: NDArray[np.int64]) -> float:
            return average_precision(confidence[chosen], self.present[chosen])

        def best(chosen: NDArray[np.int64]) -> float:
            return max_f1(confidence[chosen], self.present[chosen]).f1

        return {"present/AP": OfAll(precision, self.present), "present/max_F1": OfAll(best, self.present)}


@dataclass(frozen=True)
class JudgedTask:
    """Tell pairs whose sound comes from the picture from those whose sound does not, silence and noise among them.

    Attributes:
        name: of the task.
    """

    name: str

    def prepare(self, connection: Connection, record: CounterfactualRecord, progress: Progress) -> PreparedJudged:
        """Embed pictures and sounds.

        Raises:
            ConfigError: the connection does not have both modalities, or no pairs are left to tell apart.
        """
        image_space, audio_space = crossing_spaces(connection, "image", "audio")
        images = embed_items(
            encoder_for(connection, "image", image_space),
            "image",
            record.images,
            progress=lambda share: progress(f"image in {image_space}", share),
        )
        sounds = embed_items(
            encoder_for(connection, "audio", audio_space),
            "audio",
            record.sounds,
            progress=lambda share: progress(f"audio in {audio_space}", share),
        )
        both = np.intersect1d(images.kept, sounds.kept)
        present = record.present[both]
        _check_kinds(record, present)
        return PreparedJudged(_only(images, both), _only(sounds, both), present, len(record.present) - len(both))


def _check_kinds(record: CounterfactualRecord, present: NDArray[np.bool_]) -> None:
    if not len(present):
        raise ConfigError(f"{record.name}: none of the {len(record.present)} pairs has both items embedded.")
    if present.all() or not present.any():
        raise ConfigError(
            f"{record.name}: expected pairs of both kinds, got {int(present.sum())} whose sound is in the picture and "
            f"{int((~present).sum())} whose sound is not."
        )


def _only(embedded: Embedded, items: NDArray[np.int64]) -> Embedded:
    chosen = np.searchsorted(embedded.kept, items)
    return Embedded(embedded.space, embedded.modality, embedded.rows[chosen], items, embedded.failed)

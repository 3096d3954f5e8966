"""Counterfactual recognition: is what sounds in the picture? The cosine is the confidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError
from cmcr.evaluation.baselines import Method, chance
from cmcr.evaluation.datasets.records import CounterfactualRecord, clusters_of
from cmcr.evaluation.detection import average_precision, levels, max_f1
from cmcr.evaluation.intervals import Clusters
from cmcr.evaluation.tasks.embedding import Embedded, embed_items, spaces_for
from cmcr.evaluation.tasks.scores import OfAll, Scores
from cmcr.progress import Progress


@dataclass(frozen=True)
class PreparedCounterfactual:
    """Pictures and sounds, embedded; row i of both is one pair.

    Attributes:
        images: embeddings of the pictures.
        sounds: of the sounds.
        present: `(n,)` whether the sounding object is in the picture.
        failed: pairs of which an item could not be embedded.
        clusters: of pairs of one picture.
    """

    images: Embedded
    sounds: Embedded
    present: NDArray[np.bool_]
    failed: int
    clusters: Clusters = None

    def score(self, method: Method) -> Scores:
        """Give average precision and the best F1 of telling the pairs whose sound is in the picture."""
        found = levels((method(self.images) * method(self.sounds)).sum(axis=1))

        def score(of: Callable[[NDArray[np.int64], NDArray[np.bool_]], float]) -> OfAll:
            return OfAll(lambda rows: of(found[rows], self.present[rows]), self.present, self.clusters)

        return {"present/AP": score(average_precision), "present/max_F1": score(max_f1)}

    def chance(self, seed: int) -> Scores:
        """Give what random rows score."""
        return self.score(chance(seed))


def prepare(connection: Connection, record: CounterfactualRecord, progress: Progress) -> PreparedCounterfactual:
    """Embed pictures and sounds.

    Raises:
        NotConnectedError: the connection does not have both modalities.
        ConfigError: encoders that are not attached, or no pairs of both kinds are left.
    """
    image_space, audio_space = spaces_for(connection, "image", "audio")
    images = embed_items(connection, image_space, "image", record.images, progress)
    sounds = embed_items(connection, audio_space, "audio", record.sounds, progress)
    pairs = np.intersect1d(images.kept, sounds.kept)
    present = record.present[pairs]
    if present.all() or not present.any():
        raise ConfigError(
            f"{record.name}: expected pairs of both kinds, got {int(present.sum())} whose sound is in the picture and "
            f"{int((~present).sum())} whose sound is not, of {len(record.present)} with {len(pairs)} embedded."
        )
    return PreparedCounterfactual(
        images.only(np.searchsorted(images.kept, pairs)),
        sounds.only(np.searchsorted(sounds.kept, pairs)),
        present,
        failed=len(record.present) - len(pairs),
        clusters=clusters_of(record.groups, pairs),
    )

"""Sounds and pictures of one clip as pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmcr.evaluation.datasets.records import RetrievalRecord
from cmcr.evaluation.metrics import PerQuery


def sound_to_picture(
    name: str, ids: Sequence[str], *, sounds: Sequence[Any], images: Sequence[Any], left_out: int
) -> RetrievalRecord:
    """Pair sound i with picture i."""
    return RetrievalRecord(
        name=name,
        modalities=("audio", "image"),
        first=list(sounds),
        second=list(images),
        first_ids=list(ids),
        second_ids=list(ids),
        positives=PerQuery.one(np.arange(len(ids))),
        left_out=left_out,
    )

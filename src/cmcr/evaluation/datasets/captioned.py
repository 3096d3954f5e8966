"""Items with captions as pairs: pictures or sounds first, their captions second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmcr.errors import FormatError
from cmcr.evaluation.datasets.layout import Layout, Request
from cmcr.evaluation.datasets.records import RetrievalRecord
from cmcr.evaluation.metrics import PerQuery

CAPTIONS = 5
"""Captions taken of an item: the first five, as published figures do; some pictures of COCO have six or seven."""


@dataclass(frozen=True)
class Captioned:
    """One item as its annotations name it.

    Args:
        name: its id.
        file: where it lies; `None` where it is not there.
        wanted: the file as the layout names it, for messages.
        captions: all its captions, in their order.
    """

    name: str
    file: Path | None
    wanted: str
    captions: Sequence[str]


def captioned_pairs(
    layout: Layout, folder: Path, request: Request, split: str, modality: str, items: Sequence[Captioned]
) -> RetrievalRecord:
    """Pair each item with its first five captions.

    Captions are left as they are, down to the last space. Those with nothing but white space, which no space encodes, are
    left out and counted.

    Raises:
        ArtefactNotFoundError: files that are not there, unless that is allowed.
        FormatError: an item without a caption.
    """
    there = [item.file is not None for item in items]
    kept = [items[row] for row in layout.kept(folder, request, [item.wanted for item in items], there)]
    texts: list[str] = []
    text_ids: list[str] = []
    rows, blank = [], 0
    for item in kept:
        first = [(number, text) for number, text in enumerate(item.captions[:CAPTIONS]) if text.strip()]
        if not first:
            raise FormatError(f"{folder}: {item.name} of {layout.name} has no caption.")
        blank += len(item.captions[:CAPTIONS]) - len(first)
        rows.append(np.arange(len(texts), len(texts) + len(first)))
        texts.extend(text for _, text in first)
        text_ids.extend(f"{item.name}#{number}" for number, _ in first)
    return RetrievalRecord(
        name=layout.called(split),
        modalities=(modality, "text"),
        first=[item.file for item in kept],
        second=texts,
        first_ids=[item.name for item in kept],
        second_ids=text_ids,
        positives=PerQuery.several(rows),
        left_out=len(items) - sum(there) + blank,
    )


def if_there(path: Path) -> Path | None:
    """Give the path of a file that is there."""
    return path if path.is_file() else None

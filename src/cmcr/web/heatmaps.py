"""Where in a picture is what a query asks for: cosines with its regions, as localization measures them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import ConfigError, SampleError
from cmcr.evaluation.tasks.regions import embed_regions, with_whole_picture
from cmcr.search.engine import SearchIndex
from cmcr.search.items import Item
from cmcr.search.parts import COMMON
from cmcr.search.query import Part
from cmcr.web.bounds import Latest

Cells = NDArray[np.float32]
"""Cells of a picture: `(rows, columns, D)` in its own space."""


def heatmap(now: SearchIndex, item: Item, parts: Sequence[Part], kept: Latest[Cells]) -> dict[str, Any]:
    """Compare a query with every cell of a picture: `schemas.Heatmap`; to be run where encoders are.

    By the cosines of the picture's own space where that reads all parts, else by those of the connection.

    Raises:
        ConfigError: a picture whose encoder is not open, or parts that cancel each other.
        SampleError: no picture, not there any more, or one that cannot be decoded.
    """
    if (cells := kept.get((now.hash, item.number))) is None:
        cells = _cells(now, item)
        kept.put((now.hash, item.number), cells)
    rows, columns, width = cells.shape
    compared = cells.reshape(-1, width)
    try:
        scale, query = item.space, now.vector_for(parts, item.space)
    except ConfigError:  # it does not read all of them
        scale, query = COMMON, now.vector_for(parts, COMMON)
        compared = now.opened.connection.common(compared, item.space)
    cosines = np.clip(compared @ query, -1, 1).reshape(rows, columns)
    return {"rows": rows, "columns": columns, "scale": scale, "cosines": cosines.astype(np.float64).round(5).tolist()}


def _cells(now: SearchIndex, item: Item) -> Cells:
    if item.modality != "image" or item.path is None:
        raise SampleError(f"item {item.number} has no picture of its own: it is of the modality {item.modality!r}.")
    if item.space not in now.encoders:
        raise ConfigError(
            f"no encoder of space {item.space!r} is open, to look at the picture. Give its model: --model."
        )
    encoder = now.encoders[item.space]
    regions, failed = embed_regions(encoder, {0: item.path}, lambda shown: with_whole_picture(()), lambda share: None)
    if failed:
        raise SampleError(failed[0])
    return regions[0].cells.astype(np.float32)

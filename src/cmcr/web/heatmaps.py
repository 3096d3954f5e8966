"""Where in a picture is what a query asks for: cosines with its regions, as localization measures them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import ConfigError, SampleError
from cmcr.evaluation.tasks.regions import embed_regions, with_whole_picture
from cmcr.search.engine import SearchIndex
from cmcr.search.parts import COMMON
from cmcr.search.query import Part
from cmcr.web.kept import Kept
from cmcr.web.uploads import Uploaded

Cells = Kept[tuple[str, NDArray[np.float32]]]
"""By picture: the space that looked at it, and `(rows, columns, D)` its cells."""


def heatmap(now: SearchIndex, picture: int | Uploaded, parts: Sequence[Part], kept: Cells) -> dict[str, Any]:
    """Compare a query with every cell of a picture: `schemas.Heatmap`; to be run where encoders are.

    By the cosines of the picture's own space where that reads all parts, else by those of the connection.

    Raises:
        ConfigError: an item that is not there, a modality that nobody here reads, or parts that cancel each other.
        SampleError: no picture, not there any more, or one that cannot be decoded.
    """
    space, cells = _cells(now, picture, kept)
    rows, columns, width = cells.shape
    try:
        scale, query = space, now.vector_for(parts, space)
        compared = cells.reshape(-1, width)
    except ConfigError:
        scale, query = COMMON, now.vector_for(parts, COMMON)
        compared = now.opened.connection.common(cells.reshape(-1, width), space)
    cosines = np.clip(compared @ query, -1, 1).reshape(rows, columns)
    return {"rows": rows, "columns": columns, "scale": scale, "cosines": cosines.astype(np.float64).round(5).tolist()}


def _cells(now: SearchIndex, picture: int | Uploaded, kept: Cells) -> tuple[str, NDArray[np.float32]]:
    key = now.hash, picture if isinstance(picture, int) else picture.hash
    if (found := kept.get(key)) is not None:
        return found
    space, source = _source(now, picture)
    if space not in now.encoders:
        raise ConfigError(
            f"no encoder of space {space!r} is open, which would look at the picture. Give its model: --model."
        )
    regions, failed = embed_regions(
        now.encoders[space], {0: source}, lambda shown: with_whole_picture(()), lambda share: None
    )
    if failed:
        raise SampleError(failed[0])
    cells = regions[0].cells.astype(np.float32)
    kept.put(key, (space, cells), cells.nbytes)
    return space, cells


def _source(now: SearchIndex, picture: int | Uploaded) -> tuple[str, Any]:
    if isinstance(picture, Uploaded):
        if picture.modality != "image":
            raise SampleError(f"expected a picture, got an upload of the modality {picture.modality!r}.")
        spaces = now.opened.connection.spaces
        return next(space.name for space in spaces if "image" in space.modalities), picture.content
    item = now.item(picture)
    if item.modality != "image" or item.path is None:
        raise SampleError(f"item {picture} has no picture of its own: it is of the modality {item.modality!r}.")
    return item.space, item.path

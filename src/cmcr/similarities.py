"""Embed a few items, of whatever modalities, and compare each with each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.embeddings import normalized, rows_of
from cmcr.errors import ConfigError
from cmcr.opening import load
from cmcr.spaces.registry import space, space_names


def similarities(
    where: str | Path, items: Mapping[str, Sequence[Any]], *, via: str | None = None
) -> tuple[list[str], NDArray[np.float32]]:
    """Compare items in a space or through a connection.

    Args:
        where: a space's name, or the folder of a connection.
        items: by modality, what its encoder reads.
        via: in a connection, the space whose encoder takes the overlap.

    Returns:
        The items' labels, and the `(n, n)` cosines between them in the same order.

    Raises:
        ConfigError: no items, a modality that is not embedded there, or neither a space nor a folder.
        CmcrError: whatever embedding them raises.
    """
    if not items:
        raise ConfigError("nothing to embed: give pictures, texts, sounds or point clouds.")
    labels = [str(item) for inputs in items.values() for item in inputs]
    rows = np.concatenate([_embed(where, inputs, modality, via) for modality, inputs in items.items()])
    unit = normalized(rows_of(rows, "embeddings"))
    return labels, (unit @ unit.T).numpy()


def _embed(where: str | Path, inputs: Sequence[Any], modality: str, via: str | None) -> Any:
    """Embed the items of one modality: `(n, D)` float32 numpy rows."""
    if str(where) in space_names():
        return space(str(where)).encode(list(inputs), modality)
    if not Path(where).is_dir():
        raise ConfigError(f"{where} is neither a space ({', '.join(space_names())}) nor the folder of a connection.")
    connection = load(where)
    both = all(modality in known.modalities for known in connection.spaces)
    return connection.encode(list(inputs), modality, space=via if both else None)

"""Embed a few items, of whatever modalities, and compare each with each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.arrays import normalized, rows_of
from cmcr.errors import ConfigError
from cmcr.opening import load
from cmcr.spaces.registry import space, space_names


def similarities(
    where: str | Path,
    items: Mapping[str, Sequence[Any]],
    *,
    via: str | None = None,
    models: Mapping[str, str] | None = None,
) -> tuple[list[str], NDArray[np.float32]]:
    """Compare items in a space or through a connection.

    Args:
        where: a space's name, or the folder of a connection.
        items: by modality, what its encoder reads.
        via: in a connection, the space whose encoder takes the overlap.
        models: by a space's name, which model it shall be opened with: a repository, a folder or a file.

    Returns:
        The items' labels, and the `(n, n)` cosines between them in the same order.

    Raises:
        ConfigError: no items, a modality that is not embedded there, or neither a space nor a folder.
        CmcrError: whatever embedding them raises.
    """
    if not items:
        raise ConfigError("nothing to embed: give pictures, texts, sounds or point clouds.")
    labels = [str(item) for inputs in items.values() for item in inputs]
    embed = _embedder(where, via, models or {})
    rows = np.concatenate([embed(list(inputs), modality) for modality, inputs in items.items()])
    unit = normalized(rows_of(rows, "embeddings"))
    return labels, (unit @ unit.T).numpy()


def _embedder(where: str | Path, via: str | None, models: Mapping[str, str]) -> Callable[[list[Any], str], Any]:
    """Find what embeds a list of items of a modality as `(n, D)` float32 numpy rows."""
    if str(where) in space_names():
        options = {"model": models[str(where)]} if str(where) in models else {}
        return space(str(where), **options).encode
    if not Path(where).is_dir():
        raise ConfigError(f"{where} is neither a space ({', '.join(space_names())}) nor the folder of a connection.")
    connection = load(where, encoders=[space(name, model=model) for name, model in models.items()])

    def embed(inputs: list[Any], modality: str) -> Any:
        both = all(modality in known.modalities for known in connection.spaces)
        return connection.encode(inputs, modality, space=via if both else None)

    return embed

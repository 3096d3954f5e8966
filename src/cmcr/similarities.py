"""Embed a few items of any modalities and compare each with each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.arrays import normalized, rows_of
from cmcr.errors import ConfigError
from cmcr.loading import load
from cmcr.spaces.registry import names_space, space, space_names


def similarities(
    where: str | Path,
    items: Mapping[str, Sequence[Any]],
    *,
    via: str | None = None,
    models: Mapping[str, str] | None = None,
) -> tuple[list[str], NDArray[np.float32]]:
    """Compare items in a space or through a connection.

    Args:
        where: a space as `cmcr.space` takes it, or the folder of a connection.
        items: by modality, what its encoder reads.
        via: in a connection, the space whose encoder takes what several spaces embed, such as the overlap.
        models: by a space's name, the model to open it with: a repository, a folder or a file.

    Returns:
        The items' labels, and the `(n, n)` cosines between them in the same order.

    Raises:
        ConfigError: no items, a modality that is not embedded there, or neither a space nor a folder.
        CmcrError: whatever embedding them raises.
    """
    models = models or {}
    if not items:
        raise ConfigError("nothing to embed: give pictures, texts, sounds or point clouds.")
    if names_space(str(where)):
        alone = space(str(where), **({"model": models[str(where)]} if str(where) in models else {}))
        rows = [alone.encode(inputs, modality) for modality, inputs in items.items()]
    elif Path(where).is_dir():
        connection = load(where, encoders=[space(name, model=model) for name, model in models.items()])
        owners = Counter(modality for known in connection.spaces for modality in known.modalities)
        rows = [
            connection.encode(inputs, modality, space=via if owners[modality] > 1 else None)
            for modality, inputs in items.items()
        ]
    else:
        raise ConfigError(f"{where} is neither a space ({', '.join(space_names())}) nor the folder of a connection.")
    unit = normalized(rows_of(np.concatenate(rows), "embeddings"))
    return [str(item) for inputs in items.values() for item in inputs], (unit @ unit.T).numpy()

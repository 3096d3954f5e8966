"""Reference vectors: what encoders and maps made of a few fixed inputs when a connection was saved.

A fingerprint tells weights and settings apart; it cannot see that a library computes otherwise today, or that a tower is
broken. So a saved connection keeps a few embeddings of inputs that are made by code, and they are compared again where it is
loaded and verified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cmcr._version import versions_here
from cmcr.arrays import rows_of
from cmcr.errors import DimensionError, IntegrityError, MissingDependencyError

if TYPE_CHECKING:
    from cmcr.connection.connection import Connection

LEAST_COSINE = 0.999
"""Of a reference and the same input today: other processors and thread counts stay above 0.99999, other weights do not."""

_TEXTS = ("four hundred and seven", "a dog barks in the rain", "407")
_EDGE = 96  # pixels of a picture


def reference_inputs(modality: str) -> list[Any]:
    """Make the fixed inputs of a modality, as encoders read them; none for a modality that cmcr does not know."""
    if modality == "text":
        return list(_TEXTS)
    if modality == "image":
        y, x = np.mgrid[:_EDGE, :_EDGE]
        rings = (x - 48) ** 2 + (y - 30) ** 2
        return [
            np.stack([x * 2, y * 2, (x // 16 + y // 16) % 2 * 255], axis=2).astype(np.uint8),  # a chequered ramp
            np.stack([rings // 8 % 256, rings // 32 % 256, 255 - x], axis=2).astype(np.uint8),
        ]
    if modality == "audio":
        time = np.arange(24_000) / 48_000  # half a second
        sounds = (np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * (200 + 4000 * time) * time) * (1 - time))
        return [{"array": (0.5 * sound).astype(np.float32), "sampling_rate": 48_000} for sound in sounds]
    if modality == "point_cloud":
        turn = np.arange(1024) * np.pi * (3 - 5**0.5)  # the golden angle spreads points evenly over a sphere
        z = 1 - 2 * (np.arange(1024) + 0.5) / 1024
        radius = np.sqrt(1 - z**2)
        sphere = np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=1)
        return [(sphere * [1, 0.6, 0.3]).astype(np.float32), (sphere * [0.2, 1, 0.2]).astype(np.float32)]
    return []


def reference_rows(encoder: Any, modalities: Sequence[str]) -> dict[str, Tensor]:
    """Embed the fixed inputs, by modality; an encoder that cannot, such as a table of rows made elsewhere, has none."""
    found = {}
    for modality in modalities:
        if inputs := reference_inputs(modality):
            try:
                found[modality] = _embedded(encoder, inputs, modality)
            except Exception:  # an encoder of the user's may fail in any way on inputs that are not his
                continue
    return found


def check_encoders(connection: Connection, most: int | None = None) -> list[str]:
    """Embed the fixed inputs again with all encoders that are attached, at most so many of each modality, and compare.

    Modalities whose libraries are not installed are passed over. Gives what was compared, such as "text of clip".

    Raises:
        IntegrityError: a cosine below `LEAST_COSINE`; the message names the modality and what differs between versions.
        DimensionError: rows of another width.
    """
    kept = connection.references
    return [
        f"{modality} of {space}"
        for space, encoder in connection.encoders.items()
        for modality, rows in sorted(kept.get(space, {}).items())
        if is_same(encoder, space, modality, rows[:most], connection.versions)
    ]


def is_same(encoder: Any, space: str, modality: str, expected: Tensor, versions: Mapping[str, str]) -> bool:
    """Compare one modality as `check_encoders` does; False where a library is missing that its inputs need."""
    try:
        rows = _embedded(encoder, reference_inputs(modality)[: len(expected)], modality)
    except MissingDependencyError:
        return False
    _compare(rows, expected, f"the {modality} encoder of {space!r}", versions)
    return True


def map_rows(connection: Connection, space: str) -> Tensor:
    """Carry three fixed rows of a space, `(3, K + P)`: as `common` does and as `project` does.

    The common block has a fiftieth of a projected row's square, so that a map that went wrong would hardly show in `project`.
    """
    width = connection.projectors[space].width_in
    rows = torch.outer(torch.arange(1, 4), torch.arange(width)).float().cos()
    return torch.cat([connection.common(rows, space), connection.project(rows, space)], dim=1)


def check_maps(connection: Connection, kept: Mapping[str, Tensor]) -> None:
    """Carry the fixed rows again and compare, by the space's name; raises as `check_encoders`."""
    for space, expected in kept.items():
        _compare(map_rows(connection, space), expected, f"the map of {space!r}", connection.versions)


def _embedded(encoder: Any, inputs: Sequence[Any], modality: str) -> Tensor:
    return rows_of(encoder.encode(inputs, modality, batch_size=8, show_progress_bar=False), "reference vectors").float()


def _compare(rows: Tensor, expected: Tensor, what: str, versions: Mapping[str, str]) -> None:
    if rows.shape != expected.shape:
        raise DimensionError(
            f"{what} gives rows {rows.shape[1]} wide; when this was saved they were {expected.shape[1]} wide."
        )
    cosine = 1 - float((rows.cpu() - expected).square().sum(dim=1).max()) / 2  # for a map may give zero rows
    if cosine >= LEAST_COSINE:
        return
    here = versions_here()
    others = [f"{name} {versions.get(name)}, now {now}" for name, now in here.items() if versions.get(name) != now]
    raise IntegrityError(
        f"{what} gives other rows than when this was saved: cosine {cosine:.4f} of a reference, expected "
        f"{LEAST_COSINE} or more. Versions: {'; '.join(others) or 'the same'}. Open the encoder that made the embeddings, "
        "with the libraries of then, or embed and connect again."
    )

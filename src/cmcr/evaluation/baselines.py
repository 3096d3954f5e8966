"""What makes embeddings of two spaces comparable: a connection, and the baselines that must stand beside it.

All of them see the same unpaired items. The closed forms centre each modality by its own mean: as good as what is trained
where the spaces are clean, so that any honest report must show them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.connection.connect import connect
from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError
from cmcr.evaluation.tasks.embedding import Embedded
from cmcr.memories.memories import by_space
from cmcr.memories.memory import Memory

Method = Callable[[Embedded], NDArray[np.floating]]
"""Gives `(n, K)` rows whose inner products compare items of both spaces."""

BASELINES: Mapping[str, Mapping[str, Any]] = {
    "centred ridge": {"method": "ridge", "own_share": 0.0},
    "centred procrustes": {"method": "procrustes", "own_share": 0.0},
    "cca": {"method": "cca", "own_share": 0.0},
    "posterior": {"method": "posterior", "own_share": 0.0, "width": None},  # the compact form loses ten points at times
}
"""What stands beside every method, by the names of tables: keywords of `cmcr.connect`."""


_CHANCE_WIDTH = 64


def through(connection: Connection) -> Method:
    """Compare in the common space of a connection."""
    return lambda embedded: connection.project(embedded.rows, space=embedded.space)


def own_space(embedded: Embedded) -> NDArray[np.floating]:
    """Compare within one space, as it was before any connection."""
    return embedded.rows


def chance(seed: int) -> Method:
    """Compare random unit rows: what no knowledge at all scores under the same rules.

    An item's row is a function of its modality, its embedding's bits and the seed (a hash, then normal numbers): one draw
    for a whole run, however its items are handed over, and equal items stay equal.
    """

    def drawn(embedded: Embedded) -> NDArray[np.floating]:
        named = embedded.modality.encode()
        rows = np.stack([_random_row(seed, named + row.tobytes()) for row in embedded.rows])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return drawn


def _random_row(seed: int, content: bytes) -> NDArray[np.float32]:
    key = hashlib.blake2b(content, key=str(seed).encode()[-64:], digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=np.frombuffer(key, dtype=np.uint64)))
    return generator.standard_normal(_CHANCE_WIDTH, dtype=np.float32)


def baselines(*memories: Any, overlap: str | None = None) -> dict[str, Connection]:
    """Fit the closed forms that must stand beside a connection, on what it is made from: as good where spaces are clean.

    Centred ridge, centred Procrustes, canonical correlations and the posterior over the overlap (see docs/methods.md), each
    without the parents' own blocks, on the CPU:

        for name, baseline in cmcr.baselines(clip, clap).items():
            baseline.similarity(baseline.project(sounds, "clap"), baseline.project(pictures, "clip"))

    Args:
        *memories: of two spaces, as `cmcr.connect` takes them.
        overlap: the shared modality; may be left out if there is only one.

    Returns:
        connections by the names of tables, those of `BASELINES`.

    Raises:
        CmcrError: as `cmcr.connect`.
    """
    return {
        name: connect(*memories, overlap=overlap, device="cpu", show_progress_bar=False, **options)
        for name, options in BASELINES.items()
    }


def baselines_of(connection: Connection, memories: Sequence[Memory]) -> Mapping[str, Method]:
    """Fit the baselines of a connection on memories of its spaces, the overlap matched by the ids of its items.

    Raises:
        ConfigError: memories of other spaces or of other encoders than the connection's, or without a modality.
    """
    names = [known.name for known in connection.spaces]
    if len(names) != 2:
        raise ConfigError(f"the baselines are of two spaces, the connection has {len(names)}: leave the memories out.")
    given = {known.space: known for known in by_space(memories, connection.overlap)}
    if sorted(given) != sorted(names):
        raise ConfigError(f"the baselines need memories of {' and '.join(names)}, got {', '.join(given)}.")
    for known in connection.spaces:
        theirs = given[known.name]
        if None not in (known.fingerprint, theirs.fingerprint) and known.fingerprint != theirs.fingerprint:
            raise ConfigError(
                f"the baselines need memories of the encoders {known.fingerprint} of {known.name}, with which the "
                f"connection was trained, got those of {theirs.fingerprint}."
            )
    fitted = baselines(given[names[0]], given[names[1]], overlap=connection.overlap)
    return {name: through(baseline) for name, baseline in fitted.items()}

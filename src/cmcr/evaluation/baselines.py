"""What makes embeddings of two spaces comparable: a connection, and the baselines that must stand beside it.

All of them see the same unpaired items. Plain least squares between the overlap's two embeddings fails, because the
modalities of a space lie apart (the modality gap). Centring each modality by its own mean rescues it; that makes a
baseline that any honest report must show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cmcr.arrays import Array, StoredRows, unit_rows
from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError
from cmcr.evaluation.tasks.embedding import Embedded
from cmcr.memories.memories import Memories, by_space
from cmcr.memories.memory import Memory

Method = Callable[[Embedded], NDArray[np.floating]]
"""Gives `(n, K)` rows whose inner products compare items of both spaces."""

RIDGE_STRENGTH = 0.1
"""Of the centred ridge where nothing chooses it: relative to the mean eigenvalue of the overlap's covariance."""

RIDGE_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Strengths worth trying."""


def through(connection: Connection) -> Method:
    """Compare in the common space of a connection."""
    return lambda embedded: connection.project(embedded.rows, space=embedded.space)


def own_space(embedded: Embedded) -> NDArray[np.floating]:
    """Compare within one space, as it was before any connection."""
    return embedded.rows


def chance(seed: int) -> Method:
    """Compare random unit rows, new ones at every call: what no knowledge at all scores under the same rules."""
    rng = np.random.default_rng(seed)

    def drawn(embedded: Embedded) -> NDArray[np.floating]:
        rows = rng.standard_normal((len(embedded.rows), 64), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return drawn


def baselines(left: Memories, right: Memories, overlap: str) -> dict[str, Method]:
    """Fit the standard baselines, by name, on the memories that a connection is trained on.

    Args:
        left: memories of the left space.
        right: of the right one.
        overlap: the shared modality; row i is the same item in both.
    """
    return {
        "centred ridge": centred(left, right, overlap, lambda a, b: centred_ridge(a, b, RIDGE_STRENGTH)),
        "centred procrustes": centred(left, right, overlap, centred_procrustes),
        "posterior": posterior(left, right, overlap),
    }


def centred(left: Memories, right: Memories, overlap: str, fit: Callable[[Array, Array], Tensor]) -> Method:
    """Compare through a linear map from the right space into the left one, each modality centred by its own mean.

    Args:
        left: memories of the left space.
        right: of the right one.
        overlap: the shared modality.
        fit: `centred_procrustes`, or `centred_ridge` with a strength.
    """
    weight = fit(left.loaded(overlap), right.loaded(overlap))
    means = {(space.space, modality): _mean(rows) for space in (left, right) for modality, rows in space.rows.items()}

    def mapped(embedded: Embedded) -> NDArray[np.floating]:
        mean = means.get((embedded.space, embedded.modality))
        if mean is None:
            raise ConfigError(f"the baselines need a memory of {embedded.modality} in {embedded.space}.")
        rows = torch.from_numpy(embedded.rows) - mean
        return F.normalize(rows if embedded.space == left.space else rows @ weight, dim=1).numpy()

    return mapped


def posterior(left: Memories, right: Memories, overlap: str) -> Method:
    """Compare by which overlap items two items could be, without training: see `overlap_posterior`."""
    items = {space.space: space.loaded(overlap) for space in (left, right)}
    return lambda embedded: overlap_posterior(embedded.rows, items[embedded.space]).numpy()


def centred_ridge(left: Array, right: Array, strength: float) -> Tensor:
    """Fit ``min_W |R W - L|^2 + a |W|^2`` between the two embeddings of the overlap, each centred by its mean.

    Args:
        left: `(n, D_left)` overlap embeddings.
        right: `(n, D_right)` the same items in the other space.
        strength: `a`, relative to the mean eigenvalue of ``R^T R``; above 0.

    Returns:
        `W`, `(D_right, D_left)` float32.
    """
    a, b = _centred(left), _centred(right)
    gram = b.T @ b
    ridge = strength * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, b.T @ a).float()


def centred_procrustes(left: Array, right: Array) -> Tensor:
    """Fit the best semi-orthogonal ``W = U V^T``, ``R^T L = U S V^T``, between the centred overlap (Schönemann 1966).

    Arguments and result: as `centred_ridge`.
    """
    a, b = _centred(left), _centred(right)
    u, _, vh = torch.linalg.svd(b.T @ a, full_matrices=False)
    return (u @ vh).float()


def overlap_posterior(rows: Array, overlap: Array, temperature: float = 0.02) -> Tensor:
    """Describe items by which overlap items they could be, without any training.

    ``p(t | x) = softmax_t(cos(x, t) / temperature)`` within one space. The product of two such rows from two spaces,
    ``sum_t p(t | x) p(t | y)``, is the chance that both items name the same overlap item: a similarity across the spaces.

    Args:
        rows: `(Q, D)` items of any modality of the space.
        overlap: `(n, D)` overlap items in the same space, in the order of the other space.
        temperature: above 0.

    Returns:
        `(Q, n)` probabilities, each row sums to 1.
    """
    return torch.softmax(unit_rows(rows, "rows") @ unit_rows(overlap, "overlap").T / temperature, dim=1)


def baselines_of(connection: Connection, memories: Sequence[Memory]) -> Mapping[str, Method]:
    """Fit the standard baselines of a connection on memories of its spaces, the overlap matched by the ids of its items.

    Raises:
        ConfigError: memories of other spaces or of other encoders than the connection's, or none of the overlap.
    """
    names = [known.name for known in connection.spaces]
    if len(names) != 2:
        raise ConfigError(f"the baselines are of two spaces, the connection has {len(names)}: leave the memories out.")
    given = {known.space: known for known in by_space(memories, connection.overlap)}
    if sorted(given) != sorted(names):
        raise ConfigError(f"the baselines need memories of {' and '.join(names)}, got {', '.join(given)}.")
    for known in connection.spaces:
        theirs = given[known.name]
        if connection.overlap not in theirs.rows:
            raise ConfigError(f"the baselines need a memory of {connection.overlap} in {known.name}.")
        if None not in (known.fingerprint, theirs.fingerprint) and known.fingerprint != theirs.fingerprint:
            raise ConfigError(
                f"the baselines need memories of the encoders {known.fingerprint} of {known.name}, with which the "
                f"connection was trained, got those of {theirs.fingerprint}."
            )
    return baselines(given[names[0]], given[names[1]], connection.overlap)


def _mean(rows: Tensor | StoredRows) -> Tensor:
    if isinstance(rows, Tensor):
        return rows.mean(dim=0)
    total = sum(block.sum(axis=0, dtype=np.float64) for block in rows.blocks())
    return torch.as_tensor(total / len(rows), dtype=torch.float32)


def _centred(overlap: Array) -> Tensor:
    rows = unit_rows(overlap, "overlap").double()
    return rows - rows.mean(dim=0)

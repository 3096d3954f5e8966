"""Closed forms: a linear map between the two embeddings of the overlap, each modality centred by its own mean.

Ridge regression (Hoerl & Kennard 1970) and orthogonal Procrustes (Schönemann 1966).

Cost: seconds, from the covariances of the rows alone. Prefer them where every item is its own, not one of a few hundred
concepts, and where the two spaces are alike up to a linear map. Without centring they fail on spaces whose modalities lie
apart, as those of contrastive encoders do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from cmcr.connection.maps import Chain, Map
from cmcr.connection.methods.fitting import Fitted, Parent, Run, blocks_of, centring_of, linear_map
from cmcr.connection.settings import Above0, MethodSettings


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class RidgeSettings(MethodSettings):
    """Settings of the centred ridge.

    Attributes:
        own_share, own_width: see `MethodSettings`.
        strength: of the penalty, relative to the mean eigenvalue of the overlap's covariance in the right space.
    """

    strength: Above0 = 0.1


def ridge(left: Parent, right: Parent, settings: RidgeSettings, run: Run) -> Fitted:
    """Carry the right space into the left one by ``min_W |R W - L|^2 + a |W|^2``."""
    return _fit(left, right, lambda gram, cross: ridge_weight(gram, cross, settings.strength))


def procrustes(left: Parent, right: Parent, settings: MethodSettings, run: Run) -> Fitted:
    """Carry the right space into the left one by the best semi-orthogonal map."""
    return _fit(left, right, lambda gram, cross: procrustes_weight(cross))


def ridge_into(base: Parent, leaf: Parent, settings: RidgeSettings, run: Run) -> Map:
    """Carry a space into the coordinates of another, which stay as they are: `ridge`, for a base."""
    return ridge(base, leaf, settings, run).right


def procrustes_into(base: Parent, leaf: Parent, settings: MethodSettings, run: Run) -> Map:
    """Carry a space into the coordinates of another, which stay as they are: `procrustes`, for a base."""
    return procrustes(base, leaf, settings, run).right


def ridge_weight(gram: Tensor, cross: Tensor, strength: float) -> Tensor:
    """Solve ``min_W |R W - L|^2 + a |W|^2``.

    Args:
        gram: `(D_r, D_r)` ``R^T R``.
        cross: `(D_r, D_l)` ``R^T L``.
        strength: `a`, relative to the mean eigenvalue of `gram`; above 0.

    Returns:
        ``W = (R^T R + a I)^-1 R^T L``, `(D_r, D_l)`.
    """
    penalty = strength * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + penalty, cross)


def procrustes_weight(cross: Tensor) -> Tensor:
    """Give the best semi-orthogonal ``W = U V^T``, where ``R^T L = U S V^T`` is `cross` (Schönemann 1966)."""
    u, _, vh = torch.linalg.svd(cross, full_matrices=False)
    return u @ vh


def _fit(left: Parent, right: Parent, solve: Callable[[Tensor, Tensor], Tensor]) -> Fitted:
    """Centre both spaces and solve for the linear map between their overlaps."""
    centrings = centring_of(left), centring_of(right)
    gram = torch.zeros(right.width, right.width, dtype=torch.float64)
    cross = torch.zeros(right.width, left.width, dtype=torch.float64)
    for parts in zip(blocks_of(left.overlap), blocks_of(right.overlap), strict=True):
        a, b = (centring(part).double() for centring, part in zip(centrings, parts, strict=True))
        gram += b.T @ b
        cross += b.T @ a
    return Fitted(centrings[0], Chain([centrings[1], linear_map(solve(gram, cross))]))

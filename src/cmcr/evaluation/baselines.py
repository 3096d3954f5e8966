"""What a connection must be compared with: closed forms and a training-free way, all from the same unpaired items.

Plain least squares between the overlap's two embeddings fails, because the modalities of a space lie apart (the modality
gap). Centring each modality by its own mean rescues it; that makes a baseline that any honest report must show.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cmcr.arrays import Array, unit_rows
from cmcr.errors import DimensionError

RIDGE_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Strengths worth trying, relative to the mean eigenvalue of the overlap's covariance."""


@dataclass(frozen=True)
class CentredMap:
    """A linear map from the right space into the left one, between centred embeddings.

    Each modality is centred by its own mean, then the right space's rows are mapped; rows of both end as unit rows.

    Attributes:
        weight: `(D_right, D_left)`.
    """

    weight: Tensor

    def left(self, rows: Array, mean: Tensor) -> Tensor:
        """Prepare left embeddings `(n, D_left)` of a modality whose mean `(D_left,)` is given."""
        return F.normalize(unit_rows(rows, "left rows").float() - mean, dim=1)

    def right(self, rows: Array, mean: Tensor) -> Tensor:
        """Carry right embeddings `(n, D_right)` of a modality whose mean `(D_right,)` is given into the left space."""
        return F.normalize((unit_rows(rows, "right rows").float() - mean) @ self.weight, dim=1)


def centred_ridge(left: Array, right: Array, strength: float) -> CentredMap:
    """Fit ``min_W |R W - L|^2 + a |W|^2`` between the two embeddings of the overlap, each centred by its mean.

    Args:
        left: `(n, D_left)` overlap embeddings.
        right: `(n, D_right)` the same items in the other space.
        strength: `a`, relative to the mean eigenvalue of ``R^T R``; above 0.

    Raises:
        DimensionError: row counts that differ.
        EmbeddingsError: unusable embeddings.
    """
    a, b = _centred(left, right)
    gram = b.T @ b
    ridge = strength * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return CentredMap(torch.linalg.solve(gram + ridge, b.T @ a).float())


def centred_procrustes(left: Array, right: Array) -> CentredMap:
    """Fit the best semi-orthogonal ``W = U V^T``, ``R^T L = U S V^T``, between the centred overlap (Schönemann 1966).

    Args:
        left: `(n, D_left)` overlap embeddings.
        right: `(n, D_right)` the same items in the other space.

    Raises:
        DimensionError: row counts that differ.
        EmbeddingsError: unusable embeddings.
    """
    a, b = _centred(left, right)
    u, _, vh = torch.linalg.svd(b.T @ a, full_matrices=False)
    return CentredMap((u @ vh).float())


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

    Raises:
        DimensionError: widths that differ.
        EmbeddingsError: unusable embeddings.
    """
    q, t = unit_rows(rows, "rows"), unit_rows(overlap, "overlap")
    if q.shape[1] != t.shape[1]:
        raise DimensionError(f"rows are {q.shape[1]} wide and the overlap {t.shape[1]}: both must be of one space.")
    return torch.softmax(q @ t.T / temperature, dim=1)


def _centred(left: Array, right: Array) -> tuple[Tensor, Tensor]:
    a, b = unit_rows(left, "left overlap").double(), unit_rows(right, "right overlap").double()
    if len(a) != len(b):
        raise DimensionError(f"the overlap has {len(a)} rows on the left and {len(b)} on the right.")
    return a - a.mean(dim=0), b - b.mean(dim=0)

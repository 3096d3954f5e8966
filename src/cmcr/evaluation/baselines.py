"""What a connection must be compared with: closed forms and a training-free way, all from the same unpaired items.

Plain least squares between the overlap's two embeddings fails, because the modalities of a space lie apart (the modality
gap). Centring each modality by its own mean rescues it; that makes a baseline that any honest report must show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cmcr.embeddings import Array, unit_rows
from cmcr.errors import DimensionError

_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the ridge, relative to the mean eigenvalue
_HELD_OUT = 5  # every fifth overlap item chooses the strength


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


def centred_map(left: Array, right: Array, kind: Literal["ridge", "procrustes"]) -> CentredMap:
    """Fit a closed form between the two embeddings of the overlap, each centred by its mean.

    Args:
        left: `(n, D_left)` overlap embeddings.
        right: `(n, D_right)` the same items in the other space.
        kind: `"ridge"`, least squares ``min_W |R W - L|^2 + a |W|^2`` with the strength `a` chosen by the mean cosine on
            every fifth item and refitted on all; or `"procrustes"`, the best semi-orthogonal ``W = U V^T`` of
            ``R^T L = U S V^T`` (Schönemann 1966).

    Raises:
        DimensionError: row counts that differ.
        EmbeddingsError: unusable embeddings.
    """
    a, b = unit_rows(left, "left overlap").double(), unit_rows(right, "right overlap").double()
    if len(a) != len(b):
        raise DimensionError(f"the overlap has {len(a)} rows on the left and {len(b)} on the right.")
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    weight = _procrustes(a, b) if kind == "procrustes" else _ridge(a, b, _best_strength(a, b))
    return CentredMap(weight.float())


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


def _procrustes(left: Tensor, right: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(right.T @ left, full_matrices=False)
    return u @ vh


def _ridge(left: Tensor, right: Tensor, strength: float) -> Tensor:
    gram = right.T @ right
    scaled = strength * gram.diagonal().mean()
    return torch.linalg.solve(gram + scaled * torch.eye(len(gram), dtype=gram.dtype), right.T @ left)


def _best_strength(left: Tensor, right: Tensor) -> float:
    held = torch.arange(len(left)) % _HELD_OUT == 0
    if held.all() or len(left) < 2 * _HELD_OUT:
        return 1e-2

    def fit(strength: float) -> float:
        weight = _ridge(left[~held], right[~held], strength)
        return float(F.cosine_similarity(right[held] @ weight, left[held]).mean())

    return max(_STRENGTHS, key=fit)

"""The losses of C-MCR (Wang et al., NeurIPS 2023), section 3.3, on projected unit rows.

Letters follow the paper's first pair: t are the overlap's embeddings (texts), v and a the semantically consistent
embeddings of the two outer modalities (pictures, sounds); the left space holds t^I and v^I, the right one t^A and a^A.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cmcr.embeddings import is_number
from cmcr.errors import ConfigError, DimensionError

IntraDistance = Literal["euclidean", "squared"]


def info_nce(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    """Contrast two batches of paired rows symmetrically.

    ``-1/2 mean_i [ log softmax_j(l_i . r_j / t)_i + log softmax_j(r_i . l_j / t)_i ]``, negatives from the batch. With
    the overlap's rows this is the paper's L_ttc, with the semantically consistent rows its L_avc.

    Args:
        left: `(B, K)` unit rows.
        right: `(B, K)` unit rows; row i belongs to row i of `left`.
        temperature: above 0; the paper uses 0.01 in both losses.

    Returns:
        Scalar, 0 or more; `log B` when nothing can be told apart.

    Raises:
        DimensionError: the shapes differ or have not two axes.
        ConfigError: a temperature that is not above 0.
    """
    _check_pairs(left, right)
    if not (is_number(temperature) and temperature > 0):
        raise ConfigError(f"temperature: expected a finite number above 0, got {temperature!r}.")
    logits = (left / temperature) @ right.T  # scaling the rows, not B x B logits, saves two passes over them
    target = torch.arange(len(left), device=left.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def intra_attraction(overlap: Tensor, consistent: Tensor, distance: IntraDistance = "euclidean") -> Tensor:
    """Pull the two modalities of one space together, closing its modality gap: attraction without negatives.

    ``mean_i |t_i - v_i|`` ("euclidean") or ``mean_i |t_i - v_i|^2`` ("squared"); sources disagree on the square.

    Args:
        overlap: `(B, K)` projected unit rows of the overlap.
        consistent: `(B, K)` projected unit rows of its semantically consistent counterparts.
        distance: `"euclidean"` or `"squared"`.

    Returns:
        Scalar in [0, 2], or in [0, 4] when squared.

    Raises:
        DimensionError: the shapes differ or have not two axes.
        ConfigError: an unknown distance.
    """
    _check_pairs(overlap, consistent)
    difference = overlap - consistent
    if distance == "euclidean":
        return torch.linalg.vector_norm(difference, dim=1).mean()
    if distance == "squared":
        return difference.square().sum(dim=1).mean()
    raise ConfigError(f"distance: expected 'euclidean' or 'squared', got {distance!r}.")


class LossTerms(NamedTuple):
    """The parts of the training loss, each a scalar.

    Attributes:
        total: ``L_inter + lambda L_intra``, what is minimised.
        ttc: L_ttc, the overlap against the overlap.
        avc: L_avc, the semantically consistent rows against each other.
        inter: L_inter, the weighted sum of both (the paper's weights are 1).
        intra: L_intra, ``1/2 (mean |t^I - v^I| + mean |t^A - a^A|)``.
    """

    total: Tensor
    ttc: Tensor
    avc: Tensor
    inter: Tensor
    intra: Tensor


def connection_loss(
    left: tuple[Tensor, Tensor],
    right: tuple[Tensor, Tensor],
    *,
    ttc_temperature: float = 0.01,
    avc_temperature: float = 0.01,
    ttc_weight: float = 1.0,
    avc_weight: float = 1.0,
    intra_weight: float = 0.1,
    intra_distance: IntraDistance = "euclidean",
) -> LossTerms:
    """Compute the whole loss of one batch, ``L = L_ttc + L_avc + lambda L_intra``.

    A term of weight 0 is not computed and reported as 0.

    Args:
        left: projected unit rows `(B, K)` of the overlap and of its semantically consistent counterparts, left space.
        right: the same of the right space; row i stands for the same overlap item everywhere.
        ttc_temperature: tau_2.
        avc_temperature: tau_3.
        ttc_weight: weight of L_ttc, 1 in the paper.
        avc_weight: weight of L_avc, 1 in the paper.
        intra_weight: lambda.
        intra_distance: see `intra_attraction`.

    Returns:
        The terms; gradients flow through `total`.
    """
    zero = left[0].new_zeros(())
    ttc = info_nce(left[0], right[0], ttc_temperature) if ttc_weight else zero
    avc = info_nce(left[1], right[1], avc_temperature) if avc_weight else zero
    inter = ttc_weight * ttc + avc_weight * avc
    if not intra_weight:
        return LossTerms(inter, ttc, avc, inter, zero)
    intra = (intra_attraction(*left, intra_distance) + intra_attraction(*right, intra_distance)) / 2
    return LossTerms(inter + intra_weight * intra, ttc, avc, inter, intra)


def _check_pairs(left: Tensor, right: Tensor) -> None:
    if left.ndim != 2 or left.shape != right.shape:
        raise DimensionError(
            f"expected two batches of one shape (B, K), got {tuple(left.shape)} and {tuple(right.shape)}."
        )

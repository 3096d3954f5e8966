"""The losses of C-MCR (Wang et al., NeurIPS 2023), section 3.3, on projected unit rows.

Letters follow the paper's first pair: t are the overlap's embeddings (texts), v and a the semantically consistent
embeddings of the two outer modalities (pictures, sounds); the left space holds t^I and v^I, the right one t^A and a^A.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from cmcr.connection.info_nce import check_pairs, info_nce
from cmcr.connection.peers import Peers
from cmcr.connection.products import Precision
from cmcr.errors import ConfigError

__all__ = ["IntraDistance", "LossTerms", "connection_loss", "info_nce", "intra_attraction"]

IntraDistance = Literal["euclidean", "squared"]


def intra_attraction(
    overlap: Tensor, consistent: Tensor, distance: IntraDistance = "euclidean", *, peers: Peers | None = None
) -> Tensor:
    """Pull the two modalities of one space together, closing its modality gap: attraction without negatives.

    ``mean_i |t_i - v_i|`` ("euclidean") or ``mean_i |t_i - v_i|^2`` ("squared"); sources disagree on the square.

    Args:
        overlap: `(B, K)` projected unit rows of the overlap.
        consistent: `(B, K)` projected unit rows of its semantically consistent counterparts.
        distance: `"euclidean"` or `"squared"`.
        peers: the processes that share the batch, as in `info_nce`: the mean is over the rows of all, and a row's
            gradient is that of this mean.

    Returns:
        Scalar in [0, 2], or in [0, 4] when squared.

    Raises:
        DimensionError: the shapes differ or have not two axes.
        ConfigError: an unknown distance.
    """
    check_pairs(overlap, consistent)
    difference = overlap - consistent
    if distance == "euclidean":
        return _mean(torch.linalg.vector_norm(difference, dim=1), peers)
    if distance == "squared":
        return _mean(difference.square().sum(dim=1), peers)
    raise ConfigError(f"distance: expected 'euclidean' or 'squared', got {distance!r}.")


def _mean(values: Tensor, peers: Peers | None) -> Tensor:
    if peers is None or peers.size == 1:
        return values.mean()
    count = peers.sum_(torch.tensor(len(values), device=values.device))
    total: Tensor = _Sum.apply(values.sum(), peers)  # type: ignore[no-untyped-call]
    return total / count


class _Sum(torch.autograd.Function):
    """Sum a value over processes. All of them have the sum's slope, which is therefore also that of the own value."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, peers: Peers) -> Tensor:
        return peers.sum_(value.clone())

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope, None


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
    precision: Precision = "float32",
    peers: Peers | None = None,
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
        precision: see `info_nce`.
        peers: the processes that share the batch, each with its own rows: the terms are those of the whole batch, and
            gradients of shared parameters must be summed over the processes; see `info_nce`.

    Returns:
        The terms; gradients flow through `total`.
    """
    zero = left[0].new_zeros(())
    ttc, avc = zero, zero
    if ttc_weight:
        ttc = info_nce(left[0], right[0], ttc_temperature, precision=precision, peers=peers)
    if avc_weight:
        avc = info_nce(left[1], right[1], avc_temperature, precision=precision, peers=peers)
    inter = ttc_weight * ttc + avc_weight * avc
    if not intra_weight:
        return LossTerms(inter, ttc, avc, inter, zero)
    intra = (
        intra_attraction(*left, intra_distance, peers=peers) + intra_attraction(*right, intra_distance, peers=peers)
    ) / 2
    return LossTerms(inter + intra_weight * intra, ttc, avc, inter, intra)

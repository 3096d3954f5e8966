"""The losses of C-MCR (Wang et al., NeurIPS 2023), section 3.3, on projected unit rows.

Letters follow the paper's first pair: t are the overlap's embeddings (texts), v and a the semantically consistent
embeddings of the two outer modalities (pictures, sounds); the left space holds t^I and v^I, the right one t^A and a^A.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cmcr.arrays import is_number
from cmcr.connection.settings import Settings
from cmcr.engine.precision import Precision, check_precision
from cmcr.engine.tiled_info_nce import TiledInfoNCE
from cmcr.errors import ConfigError, DimensionError, DtypeError, TooFewRowsError


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


def connection_loss(left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], settings: Settings) -> LossTerms:
    """Compute the whole loss of one batch, ``L = L_ttc + L_avc + lambda L_intra``.

    Args:
        left: projected unit rows `(B, K)` of the overlap and of its semantically consistent rows, left space.
        right: the same of the right space; row i stands for the same overlap item everywhere.
        settings: temperatures tau_2 and tau_3, the weights, the distance of L_intra and the precision. A term of weight 0
            is not computed and reported as 0.

    Returns:
        The terms; gradients flow through `total`.
    """
    ttc = avc = intra = left[0].new_zeros(())
    if settings.ttc_weight:
        ttc = info_nce(left[0], right[0], settings.ttc_temperature, precision=settings.precision)
    if settings.avc_weight:
        avc = info_nce(left[1], right[1], settings.avc_temperature, precision=settings.precision)
    if settings.intra_weight:
        distance = settings.intra_distance
        intra = (intra_attraction(*left, distance) + intra_attraction(*right, distance)) / 2
    inter = settings.ttc_weight * ttc + settings.avc_weight * avc
    return LossTerms(inter + settings.intra_weight * intra, ttc, avc, inter, intra)


def info_nce(left: Tensor, right: Tensor, temperature: float, *, precision: Precision = "float32") -> Tensor:
    """Contrast two batches of paired rows symmetrically.

    ``-1/2 mean_i [ log softmax_j(l_i . r_j / t)_i + log softmax_j(r_i . l_j / t)_i ]``, negatives from the batch. With
    the overlap's rows this is the paper's L_ttc, with the semantically consistent rows its L_avc.

    Exact, with a running maximum: rows need not be unit rows. A logit is as exact as its cosine, whose rounding in float32
    is some 1e-7, divided by the temperature. The scratch space is some 50 MB on a CPU whatever B, besides what is as large
    as the inputs. The gradient cannot be differentiated again.

    Args:
        left: `(B, K)` unit rows.
        right: `(B, K)` unit rows; row i belongs to row i of `left`.
        temperature: above 0; the paper uses 0.01 in both losses.
        precision: `"bfloat16"` computes the products of the gradient in bfloat16, which puts it off by some thousandths;
            the loss stays in float32. Rows of float64 are computed in float64 either way.

    Returns:
        Scalar, 0 or more; `log B` when nothing can be told apart. float64 if an input is, else float32.

    Raises:
        DtypeError: an input is no torch tensor of floating point.
        DimensionError: the shapes differ or have not two axes.
        TooFewRowsError: there is no pair.
        ConfigError: a temperature that is not above 0, or an unknown precision.
    """
    _check_pairs(left, right)
    if not (is_number(temperature) and temperature > 0):
        raise ConfigError(f"temperature: expected a finite number above 0, got {temperature!r}.")
    check_precision(precision)
    working = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    coarse = precision == "bfloat16" and working == torch.float32
    rows = left.to(working), right.to(working)
    loss: Tensor = TiledInfoNCE.apply(*rows, float(temperature), coarse)  # type: ignore[no-untyped-call]
    return loss


def intra_attraction(overlap: Tensor, consistent: Tensor, distance: str = "euclidean") -> Tensor:
    """Pull the two modalities of one space together: attraction without negatives.

    ``mean_i |t_i - v_i|`` ("euclidean") or ``mean_i |t_i - v_i|^2`` ("squared"); sources disagree on the square. At the
    paper's weight of 0.1 it does not close a wide modality gap.

    Args:
        overlap: `(B, K)` projected unit rows of the overlap.
        consistent: `(B, K)` projected unit rows, semantically consistent with them.
        distance: `"euclidean"` or `"squared"`.

    Returns:
        Scalar in [0, 2], or in [0, 4] when squared.

    Raises:
        DtypeError, DimensionError, TooFewRowsError: as `info_nce`.
        ConfigError: an unknown distance.
    """
    _check_pairs(overlap, consistent)
    difference = overlap - consistent
    if distance == "euclidean":
        return torch.linalg.vector_norm(difference, dim=1).mean()
    if distance == "squared":
        return difference.square().sum(dim=1).mean()
    raise ConfigError(f"distance: expected 'euclidean' or 'squared', got {distance!r}.")


def _check_pairs(left: Tensor, right: Tensor) -> None:
    for rows in (left, right):
        if not (isinstance(rows, Tensor) and rows.is_floating_point()):
            kind = rows.dtype if isinstance(rows, Tensor) else type(rows).__name__
            raise DtypeError(f"expected two batches that are torch tensors of floating point, got {kind}.")
    if left.ndim != 2 or left.shape != right.shape:
        raise DimensionError(
            f"expected two batches of one shape (B, K), got {tuple(left.shape)} and {tuple(right.shape)}."
        )
    if not len(left):
        raise TooFewRowsError("expected a batch of at least 1 pair, got 0.")

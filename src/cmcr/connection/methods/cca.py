"""Canonical correlations: both spaces turned to what they agree on, in closed form.

Of the overlap, each modality centred, the directions of the two spaces that correlate most (Hotelling 1936), regularised as a
ridge is, and each direction weighted by its correlation ``rho``:

    C_s = X_s^T X_s / n + a (tr / D) I,    U rho V^T = svd(C_L^-1/2 (X_L^T X_R / n) C_R^-1/2),
    f_L(x) = N(x C_L^-1/2 U rho^3/4),      f_R(y) = N(y C_R^-1/2 V rho^3/4),     rho divided by its largest.

Regression shrinks weak directions in which the modalities do agree; this lifts them. The strength of 1 and the power of 3/2
in all were settled on synthetic spaces and on the miniature world, where on average over seeds no ridge and no rotation was
better on any.

Cost: seconds, from the covariances of the rows alone. Prefer it to `ridge` and `procrustes` everywhere; to what is trained
where there is no time.
"""

from __future__ import annotations

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from cmcr.connection.maps import Chain
from cmcr.connection.methods.fitting import Fitted, Parent, Run, blocks_of, centring_of, linear_map
from cmcr.connection.settings import Above0, AtLeast0, MethodSettings


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class CorrelationSettings(MethodSettings):
    """Settings of canonical correlations.

    Attributes:
        own_share, own_width: see `MethodSettings`.
        strength: `a`, relative to the mean eigenvalue of each covariance.
        power: of the correlations in an inner product of two rows.
    """

    strength: Above0 = 1.0
    power: AtLeast0 = 1.5


def fit(left: Parent, right: Parent, settings: CorrelationSettings, run: Run) -> Fitted:
    """Centre both spaces and turn them to the directions that correlate."""
    centrings = centring_of(left), centring_of(right)
    moments = [torch.zeros(a, b, dtype=torch.float64) for a, b in _sizes(left.width, right.width)]
    for parts in zip(blocks_of(left.overlap), blocks_of(right.overlap), strict=True):
        a, b = (centring(part).double() for centring, part in zip(centrings, parts, strict=True))
        for moment, (x, y) in zip(moments, ((a, a), (b, b), (a, b)), strict=True):
            moment += x.T @ y
    first, second = correlated(moments[0], moments[1], moments[2], settings.strength, settings.power)
    return Fitted(Chain([centrings[0], linear_map(first)]), Chain([centrings[1], linear_map(second)]))


def correlated(left: Tensor, right: Tensor, cross: Tensor, strength: float, power: float) -> tuple[Tensor, Tensor]:
    """Find the directions of two sets of rows that correlate, each weighted by its correlation.

    Args:
        left: `(D_l, D_l)` ``X_L^T X_L``.
        right: `(D_r, D_r)` ``X_R^T X_R``.
        cross: `(D_l, D_r)` ``X_L^T X_R``.
        strength: see `CorrelationSettings`.
        power: see `CorrelationSettings`.

    Returns:
        two matrices `(D_l, K)` and `(D_r, K)`, K the smaller width.
    """
    whitening = [_inverse_root(each, strength) for each in (left, right)]
    u, s, vh = torch.linalg.svd(whitening[0] @ cross @ whitening[1], full_matrices=False)
    weights = (s / s[0]) ** (power / 2)
    return whitening[0] @ u * weights, whitening[1] @ vh.T * weights


def _inverse_root(moment: Tensor, strength: float) -> Tensor:
    penalty = strength * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)
    values, vectors = torch.linalg.eigh(moment + penalty)
    return (vectors / values.sqrt()) @ vectors.T


def _sizes(left: int, right: int) -> tuple[tuple[int, int], ...]:
    return (left, left), (right, right), (left, right)

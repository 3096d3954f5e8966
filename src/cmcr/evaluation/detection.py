"""Detection: a score for each item says how likely something is there; how well does it separate yes from no?

Tie rule: items of one score are claimed together or not at all, so their order does not matter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmcr.errors import NonFiniteError


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under precision over recall by the step rule, ``sum_t (R_t - R_{t-1}) P_t``: AP, as scikit-learn has it.

    Without interpolation, which would flatter. A constant score gets the share of positives.

    Args:
        scores: `(n,)` higher means more likely; any scale.
        labels: `(n,)` whether it is there, at least once: recall is undefined else.

    Returns:
        In (0, 1].

    Raises:
        NonFiniteError: a score that is NaN or infinite.
    """
    right, claimed = _claims(scores, labels)
    # Divided last: a sum of whole numbers is exact, so that a perfect order gives 1 and not a rounding above it.
    return float(np.sum(np.diff(right, prepend=0) * (right / claimed)) / right[-1])


def max_f1(scores: ArrayLike, labels: ArrayLike) -> float:
    """Largest F1 over all thresholds, ``2 P R / (P + R) = 2 TP / (claims + positives)``.

    The threshold is chosen on the items it is measured on, so that the figure is an upper bound, as published ones are.

    Args:
        scores: as `average_precision`.
        labels: as `average_precision`.

    Returns:
        F1 in (0, 1]: claiming everything already gives more than 0.
    """
    right, claimed = _claims(scores, labels)
    return float(np.max(2 * right / (claimed + right[-1])))


def _claims(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count right claims and all claims `(T,)` at each of the distinct scores, from the highest on."""
    given = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(given).all():
        raise NonFiniteError(f"scores: NaN or infinity, the first at {int(np.argmax(~np.isfinite(given)))}.")
    order = np.argsort(-given, kind="stable")
    last = np.append(np.flatnonzero(np.diff(given[order])), len(given) - 1)  # the last item of each score
    return np.cumsum(np.asarray(labels)[order])[last], last + 1

"""Detection: a score for each item says how likely something is there; how well does it separate yes from no?

Tie rule: items of one score are claimed together or not at all, so their order does not matter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmcr.errors import DimensionError, DtypeError, NonFiniteError, TooFewRowsError


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under precision over recall by the step rule, ``sum_t (R_t - R_{t-1}) P_t``: AP, as scikit-learn has it.

    Without interpolation, which would flatter. A constant score gets the share of positives.

    Args:
        scores: `(n,)` higher means more likely; any scale.
        labels: `(n,)` true or 1 where it is there, else false or 0.

    Returns:
        In (0, 1].

    Raises:
        TooFewRowsError: no item, or no positive one: recall is then undefined.
        DimensionError: shapes that differ or are not `(n,)`.
        DtypeError: labels other than false and true, 0 and 1.
        NonFiniteError: a score that is NaN or infinite.
    """
    right, claimed = _claims(scores, labels)
    # Divided last: a sum of whole numbers is exact, so that a perfect order gives 1 and not a rounding above it.
    return float(np.sum(np.diff(right, prepend=0) * (right / claimed)) / right[-1])


def max_f1(scores: ArrayLike, labels: ArrayLike) -> float:
    """Largest F1 over all thresholds, ``2 P R / (P + R) = 2 TP / (claims + positives)``.

    The threshold is chosen on the items it is measured on, so that the figure is an upper bound, as published ones are.

    Args:
        scores: `(n,)` higher means more likely.
        labels: `(n,)` binary.

    Returns:
        F1 in (0, 1]: claiming everything already gives more than 0.

    Raises:
        EmbeddingsError: as `average_precision`.
    """
    right, claimed = _claims(scores, labels)
    return float(np.max(2 * right / (claimed + right[-1])))


def _claims(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count right claims and all claims `(T,)` at each of the distinct scores `(T,)`, from the highest on."""
    given, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if given.ndim != 1 or given.shape != truth.shape:
        raise DimensionError(f"expected scores (n,) and labels (n,), got {given.shape} and {truth.shape}.")
    if not np.isin(truth, (0, 1)).all():
        raise DtypeError("labels: expected false and true, or 0 and 1.")
    if not np.isfinite(given).all():
        raise NonFiniteError(f"scores: NaN or infinity, the first at {int(np.argmax(~np.isfinite(given)))}.")
    if not truth.any():
        raise TooFewRowsError(f"expected at least one positive label, got none among {len(truth)}.")
    order = np.argsort(-given, kind="stable")
    falling = given[order]
    last = np.append(np.flatnonzero(np.diff(falling)), len(given) - 1)  # the last item of each score
    return np.cumsum(truth[order].astype(np.int64))[last], last + 1

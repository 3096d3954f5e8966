"""Detection: a score for each item says how likely something is there; how well does it separate yes from no?

Tie rule: items of one score are claimed together or not at all, so their order does not matter. Scores that differ by
rounding are one score: a model that gives all items the same embedding scores what a coin does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmcr.errors import NonFiniteError

ROUNDING = 8
"""Units of rounding by which two computations of one score may differ."""


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


def levels(scores: ArrayLike) -> NDArray[np.int64]:
    """Number the distinct scores, from the lowest on; those within rounding of each other get one number.

    Going down from the highest, a score begins a new level where it lies more than `ROUNDING` units of rounding, of the
    largest score in its dtype, under the first of the level.

    Args:
        scores: `(n,)`.

    Raises:
        NonFiniteError: a score that is NaN or infinite.
    """
    given = np.asarray(scores)
    if not np.isfinite(given).all():
        raise NonFiniteError(f"scores: NaN or infinity, the first at {int(np.argmax(~np.isfinite(given)))}.")
    values, places = np.unique(given, return_inverse=True)
    if given.dtype.kind != "f" or len(values) < 2:
        return places
    slack = ROUNDING * np.finfo(given.dtype).eps * np.abs(values).max()
    starts, top = np.zeros(len(values), dtype=np.int64), len(values)
    while top > 0:  # each level: from its first, the highest, down to what is within the slack
        low = int(np.searchsorted(values, values[top - 1] - slack))
        starts[low] = 1
        top = low
    return (np.cumsum(starts) - 1)[places]


def _claims(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count right claims and all claims `(T,)` at each of the distinct scores, from the highest on."""
    given = np.asarray(scores)
    given = levels(given) if given.dtype.kind == "f" else given  # whole numbers are levels already
    order = np.argsort(-given, kind="stable")
    last = np.append(np.flatnonzero(np.diff(given[order])), len(given) - 1)  # the last item of each score
    return np.cumsum(np.asarray(labels)[order])[last], last + 1

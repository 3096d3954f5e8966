"""Detection: a score for each item says how likely something is there; how well does it separate yes from no?

Tie rule: items of one score are claimed together or not at all, so their order does not matter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def average_precision(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
    """Area under precision over recall by the step rule, ``sum_t (R_t - R_{t-1}) P_t``: AP, as scikit-learn has it.

    Without interpolation, which would flatter. A constant score gets the share of positives.

    Args:
        scores: `(n,)` finite, higher means more likely; any scale.
        labels: `(n,)` whether it is there, at least once: recall is undefined else.

    Returns:
        In (0, 1].
    """
    right, claimed = _claims(scores, labels)
    # Divided last: a sum of whole numbers is exact, so that a perfect order gives 1 and not a rounding above it.
    return float(np.sum(np.diff(right, prepend=0) * (right / claimed)) / right[-1])


def max_f1(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> float:
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


def _claims(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count right claims and all claims `(T,)` at each of the distinct scores, from the highest on."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.append(np.flatnonzero(np.diff(falling)), len(scores) - 1)  # the last item of each score
    return np.cumsum(labels[order])[last], last + 1

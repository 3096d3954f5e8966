"""The mean of a figure over seeds of training, with its t interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from cmcr.errors import ConfigError, TooFewRowsError

_ANGLES = 200_001


class OverSeeds(TypedDict):
    """A figure over seeds.

    Attributes:
        mean: over the seeds.
        low: lower end of the interval of the mean; None for a single seed, which says nothing of the spread.
        high: its upper end.
        seeds: how many.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int


def over_seeds(values: Sequence[float], level: float = 0.95) -> OverSeeds:
    """Give the mean of one value a seed with Student's t interval, ``mean ± t * s / sqrt(n)``, s with n - 1.

    Unlike a bootstrap of three or five values it keeps its level where values are roughly normal, and so it is wide for two
    seeds (t = 12.7) and three (4.3).

    Raises:
        TooFewRowsError: no values.
        ConfigError: a level that is not between 0 and 1.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.size == 0:
        raise TooFewRowsError("over_seeds: expected at least one value, got none.")
    mean = float(given.mean())
    if len(given) == 1:
        return OverSeeds(mean=mean, low=None, high=None, seeds=1)
    half = t_quantile(0.5 + level / 2, len(given) - 1) * float(given.std(ddof=1)) / len(given) ** 0.5
    return OverSeeds(mean=mean, low=mean - half, high=mean + half, seeds=len(given))


def t_quantile(share: float, freedom: int) -> float:
    """Give the quantile of Student's t distribution, `share` in [0.5, 1), without a library of statistics.

    With ``t = sqrt(freedom) tan(a)`` the density becomes ``cos(a) ** (freedom - 1)``, smooth on a finite range: summed by
    trapezoids, it is right to six digits.

    Raises:
        ConfigError: share or degrees of freedom out of range.
    """
    if not 0.5 <= share < 1 or freedom < 1:
        raise ConfigError(
            f"expected a share in [0.5, 1) and at least one degree of freedom, got {share} and {freedom}."
        )
    angles = np.linspace(0.0, np.pi / 2, _ANGLES)
    density = np.cos(angles) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = np.interp(share, 0.5 + 0.5 * below / below[-1], angles)
    return float(np.sqrt(freedom) * np.tan(angle))

"""Means over seeds with Student's t interval."""

import numpy as np
import pytest
from scipy import stats

from cmcr.errors import ConfigError, TooFewRowsError
from cmcr.evaluation.over_seeds import over_seeds, t_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 500])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.975, 0.995])
def test_the_quantile_is_that_of_scipy(share, freedom):
    assert t_quantile(share, freedom) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-5, abs=1e-9)


def test_the_interval_is_that_of_scipy(rng):
    values = rng.normal(3.0, 2.0, 5)
    found = over_seeds(values.tolist())
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert found == {
        "mean": pytest.approx(values.mean()),
        "low": pytest.approx(low, rel=1e-5),
        "high": pytest.approx(high, rel=1e-5),
        "seeds": 5,
    }


def test_one_seed_says_nothing_of_the_spread():
    assert over_seeds([0.25]) == {"mean": 0.25, "low": None, "high": None, "seeds": 1}


def test_wrong_calls():
    with pytest.raises(TooFewRowsError, match="at least one value"):
        over_seeds([])
    with pytest.raises(ConfigError, match="share in"):
        over_seeds(np.arange(3.0).tolist(), level=1.0)

"""AP and max-F1 against plain Python from the definitions, and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

import reference.detection as twin
from cmcr.errors import NonFiniteError
from cmcr.evaluation.detection import average_precision, levels, max_f1


def drawn(n, levels, seed):
    """Scores of a few levels, which tie, and labels with at least one positive."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.4
    labels[rng.integers(0, n)] = True
    return rng.integers(-levels, levels, n) / 4, labels


cases = st.builds(drawn, st.integers(1, 30), st.sampled_from([1, 3, 10_000]), st.integers(0, 10_000))


@given(cases)
def test_detection_equals_its_definition_and_scikit_learn(case):
    scores, labels = case
    assert average_precision(scores, labels) == pytest.approx(twin.average_precision(scores, labels), abs=1e-14)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-14)
    assert max_f1(scores, labels) == pytest.approx(twin.max_f1(scores, labels), abs=1e-14)


def test_closed_forms():
    labels = np.array([True, True, False, False])
    falling, same = np.array([4.0, 3.0, 2.0, 1.0]), np.full(4, 7.0)
    assert average_precision(falling, labels) == 1.0
    assert max_f1(falling, labels) == 1.0
    assert average_precision(same, labels) == 0.5  # a constant score gets the share of positives
    assert max_f1(same, labels) == pytest.approx(2 / 3)
    for figure in (average_precision, max_f1):
        with pytest.raises(NonFiniteError, match="the first at 1"):
            figure([1.0, np.nan], [False, True])


def test_scores_that_differ_by_rounding_are_one_score(rng):
    rounded = np.float32(0.7) + rng.choice(np.float32([-6e-8, 0, 6e-8]), 200)
    assert len(np.unique(rounded)) > 1
    labels = rng.random(200) < 0.3
    assert average_precision(rounded, labels) == pytest.approx(labels.mean())
    assert levels(np.float32([0.1, 0.5, 0.1 + 1e-8, 0.50001])).tolist() == [0, 1, 0, 2]
    assert levels([3, 1, 3]).tolist() == [1, 0, 1]
    # Down a staircase of steps within rounding, levels stay as narrow as rounding is.
    stairs = np.float32(1) - np.arange(1000, dtype=np.float32) * np.float32(6e-8)
    assert 40 < len(np.unique(levels(stairs))) < 100

"""Localisation against plain Python from the definitions, and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.localization as twin
from cmcr.errors import ConfigError, DimensionError, NonFiniteError, TooFewRowsError
from cmcr.evaluation.localization import (
    consensus_iou,
    consensus_map,
    predicted_region,
    success_areas,
    successes,
)

seeds = st.integers(0, 10_000)
WHOLE = [[0.0, 0.0, 1.0, 1.0]]
LEFT, TOP = [[0.0, 0.0, 0.5, 1.0]], [[0.0, 0.0, 1.0, 0.5]]


def boxes(rng, n):
    corners = np.sort(rng.random((n, 2, 2)) * [1.0, 0.99] + [0.0, 0.005], axis=1)
    return np.concatenate([corners[:, 0] / 2, 0.5 + corners[:, 1] / 2], axis=1)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), seeds)
def test_consensus_and_its_overlap_equal_their_definitions(height, width, agreement, seed):
    rng = np.random.default_rng(seed)
    annotations = [WHOLE, boxes(rng, 2), boxes(rng, rng.integers(0, 3))]
    consensus = consensus_map(annotations, (height, width), agreement=agreement)
    np.testing.assert_array_equal(consensus, twin.consensus_map(annotations, height, width, agreement))
    region = rng.random((height, width)) < 0.5
    found = consensus_iou(region, consensus)
    assert found == pytest.approx(twin.consensus_iou(region, consensus), abs=1e-15)
    assert 0 <= found <= 1


@given(st.lists(st.integers(0, 100).map(lambda n: n / 100), min_size=1, max_size=20))
def test_success_equals_its_definition(ious):
    areas = success_areas(ious)
    assert areas.mean() == pytest.approx(twin.success_auc(ious), abs=1e-14)
    assert ((areas >= 0.025 - 1e-15) & (areas <= 1 + 1e-15)).all()
    assert successes(ious, 0).all()


def test_a_pixel_belongs_to_a_box_by_its_centre():
    assert consensus_map([[[0.25, 0.0, 0.75, 1.0]]], (1, 2)).tolist() == [
        [1.0, 0.0]
    ]  # left edge included, right one not


def test_annotators_that_disagree_count_by_half():
    consensus = consensus_map([LEFT, TOP, []], (4, 4), agreement=2)
    np.testing.assert_array_equal(consensus[[0, 0, 3, 3], [0, 3, 0, 3]], [1.0, 0.5, 0.5, 0.0])
    assert consensus.sum() == 8.0
    assert consensus_iou(consensus > 0, consensus) == 1.0
    assert consensus_iou(np.ones((4, 4), dtype=bool), consensus) == 8 / 12
    assert consensus_iou(consensus == 1, consensus) == 0.5
    assert consensus_iou(np.zeros((4, 4), dtype=bool), consensus) == 0.0


def test_regions_by_value_and_by_share():
    scores = np.array([[-1.0, 0.0], [0.2, 1.0]])
    assert predicted_region(scores).tolist() == [[False, True], [True, True]]
    assert predicted_region(scores, at=0.7).tolist() == [[False, False], [False, True]]
    assert predicted_region(scores, rule="share").tolist() == [[False, False], [True, True]]
    assert predicted_region(scores, rule="share", at=0.25).tolist() == [[False, False], [False, True]]
    for rule in ("value", "share"):
        assert not predicted_region(np.full((3, 3), 0.7), rule=rule).any()  # a map that points nowhere gains nothing
        np.testing.assert_array_equal(predicted_region(4 * scores + 1, rule=rule), predicted_region(scores, rule=rule))


def test_a_success_is_an_overlap_of_at_least_the_threshold():
    assert successes([0.49, 0.5, 0.51]).tolist() == [False, True, True]
    np.testing.assert_allclose(success_areas([0.0, 0.3, 0.5, 1.0]), [0.025, 0.325, 0.525, 1.0])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: consensus_map([LEFT], (4, 4), agreement=0), ConfigError, "agreement: expected at least 1, got 0"),
        (lambda: consensus_map([[], [[0.3, 0.3, 0.31, 0.31]]], (4, 4)), TooFewRowsError, "of a 4 x 4 map"),
        (lambda: consensus_map([[[0.5, 0.0, 0.5, 1.0]]], (4, 4)), DimensionError, "right > left"),
        (lambda: consensus_map([LEFT[0]], (4, 4)), DimensionError, r"boxes \(n, 4\)"),
        (lambda: consensus_map([[[0.0, 0.0, np.nan, 1.0]]], (4, 4)), DimensionError, "nan"),
        (lambda: predicted_region(np.eye(2), rule="values"), ConfigError, r"'values'\. Did you mean 'value'"),
        (lambda: predicted_region(np.eye(2), rule="share", at=1.0), ConfigError, "at: expected above 0"),
        (lambda: predicted_region(np.zeros(4)), DimensionError, r"a map \(H, W\), got \(4,\)"),
        (lambda: predicted_region([[np.nan, 1.0]]), NonFiniteError, "map"),
        (lambda: consensus_iou(np.eye(2) > 0, np.eye(3)), DimensionError, r"got \(2, 2\) and \(3, 3\)"),
        (lambda: consensus_iou(np.eye(2) > 0, np.zeros((2, 2))), TooFewRowsError, "no source"),
        (lambda: success_areas([0.5, 1.5]), DimensionError, "from 0 to 1"),
        (lambda: successes([]), TooFewRowsError, "at least one overlap"),
        (lambda: successes([0.5], 50), ConfigError, "threshold: expected 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()

"""Localisation against plain Python from the definitions, and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference.localization as twin
from cmcr.errors import TooFewRowsError
from cmcr.evaluation import localization
from cmcr.evaluation.localization import consensus_iou, consensus_map, predicted_region, success_areas

seeds = st.integers(0, 10_000)
LEFT, TOP = [0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 0.5]


def boxes(rng, n):
    corners = np.sort(rng.random((n, 2, 2)) * [1.0, 0.99] + [0.0, 0.005], axis=1)
    return np.concatenate([corners[:, 0] / 2, 0.5 + corners[:, 1] / 2], axis=1)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), seeds)
def test_consensus_and_its_overlap_equal_their_definitions(height, width, agreement, seed):
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([[[0.0, 0.0, 1.0, 1.0]], boxes(rng, rng.integers(0, 5))])
    consensus = consensus_map(drawn, (height, width), agreement=agreement)
    np.testing.assert_array_equal(consensus, twin.consensus_map(drawn, height, width, agreement))
    region = rng.random((height, width)) < 0.5
    found = consensus_iou(region, consensus)
    assert found == pytest.approx(twin.consensus_iou(region, consensus), abs=1e-15)
    assert 0 <= found <= 1


@given(st.lists(st.integers(0, 100).map(lambda n: n / 100), min_size=1, max_size=20))
def test_success_equals_its_definition(ious):
    areas = success_areas(np.array(ious))
    assert areas.mean() == pytest.approx(twin.success_auc(ious), abs=1e-14)
    assert ((areas >= 0.025 - 1e-15) & (areas <= 1 + 1e-15)).all()


def test_a_pixel_belongs_to_a_box_by_its_centre():
    found = consensus_map(np.array([[0.25, 0.0, 0.75, 1.0]]), (1, 2))
    assert found.tolist() == [[1.0, 0.0]]  # left edge included, right one not


def test_annotators_that_disagree_count_by_half():
    consensus = consensus_map(np.array([LEFT, TOP]), (4, 4), agreement=2)
    np.testing.assert_array_equal(consensus[[0, 0, 3, 3], [0, 3, 0, 3]], [1.0, 0.5, 0.5, 0.0])
    assert consensus.sum() == 8.0
    assert consensus_iou(consensus > 0, consensus) == 1.0
    assert consensus_iou(np.ones((4, 4), dtype=bool), consensus) == 8 / 12
    assert consensus_iou(consensus == 1, consensus) == 0.5
    assert consensus_iou(np.zeros((4, 4), dtype=bool), consensus) == 0.0


def test_regions_by_value_and_by_share(monkeypatch):
    scores = np.array([[-1.0, 0.0], [0.2, 1.0]])
    assert predicted_region(scores).tolist() == [[False, True], [True, True]]
    assert predicted_region(scores, "share").tolist() == [[False, False], [True, True]]
    for rule in ("value", "share"):
        assert not predicted_region(np.full((3, 3), 0.7), rule).any()  # a map that points nowhere gains nothing
        np.testing.assert_array_equal(predicted_region(4 * scores + 1, rule), predicted_region(scores, rule))
    monkeypatch.setattr(localization, "CUT", 0.7)
    assert predicted_region(scores).tolist() == [[False, False], [False, True]]


def test_areas_of_a_few_overlaps():
    np.testing.assert_allclose(success_areas(np.array([0.0, 0.3, 0.5, 1.0])), [0.025, 0.325, 0.525, 1.0])


def test_a_map_without_a_source_is_refused():
    with pytest.raises(TooFewRowsError, match="of a 4 x 4 map"):
        consensus_map(np.array([[0.3, 0.3, 0.31, 0.31]]), (4, 4))

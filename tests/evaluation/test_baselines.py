"""Baselines against closed forms, scipy-free: numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from cmcr.errors import DimensionError
from cmcr.evaluation.baselines import RIDGE_STRENGTHS, centred_procrustes, centred_ridge, overlap_posterior


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_procrustes_finds_a_rotation_and_an_offset_between_the_spaces():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    right = unit(rng.normal(size=(200, 6)))
    left = right @ rotation
    found = centred_procrustes(left, right)
    np.testing.assert_allclose(found.weight.numpy(), rotation, atol=1e-5)
    zero = torch.zeros(6)
    np.testing.assert_allclose(found.right(right, zero).numpy(), found.left(left, zero).numpy(), atol=1e-5)


def test_procrustes_between_different_widths_keeps_the_narrower_space_whole():
    rng = np.random.default_rng(1)
    found = centred_procrustes(unit(rng.normal(size=(300, 8))), unit(rng.normal(size=(300, 5)))).weight.numpy()
    np.testing.assert_allclose(found @ found.T, np.eye(5), atol=1e-5)


@pytest.mark.parametrize("strength", RIDGE_STRENGTHS)
def test_ridge_equals_scikit_learn(strength):
    rng = np.random.default_rng(2)
    right = unit(rng.normal(size=(120, 5)))
    left = unit(right @ rng.normal(size=(5, 7)) + 0.3 * rng.normal(size=(120, 7)))
    centred = right - right.mean(axis=0)
    expected = Ridge(alpha=strength * (centred**2).sum() / 5).fit(right, left).coef_.T
    np.testing.assert_allclose(centred_ridge(left, right, strength).weight.numpy(), expected, atol=1e-5)


def test_centring_uses_the_mean_that_is_given():
    rng = np.random.default_rng(3)
    left, right = unit(rng.normal(size=(50, 4))), unit(rng.normal(size=(50, 3)))
    found = centred_ridge(left, right, 0.1)
    mean = torch.tensor([0.1, -0.2, 0.3])
    expected = unit((right - mean.numpy()) @ found.weight.numpy())
    np.testing.assert_allclose(found.right(right, mean).numpy(), expected, atol=1e-6)


def test_overlap_posterior_is_a_softmax_of_cosines():
    rng = np.random.default_rng(4)
    rows, overlap = unit(rng.normal(size=(5, 4))), unit(rng.normal(size=(9, 4)))
    logits = rows @ overlap.T / 0.02
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(overlap_posterior(3 * rows, overlap).numpy(), expected, atol=1e-9)
    with pytest.raises(DimensionError, match="4 wide and the overlap 3"):
        overlap_posterior(rows, np.ones((2, 3)))


def test_baselines_need_the_same_items_on_both_sides():
    with pytest.raises(DimensionError, match="5 rows on the left and 4 on the right"):
        centred_ridge(np.ones((5, 2)), np.ones((4, 2)), 0.1)

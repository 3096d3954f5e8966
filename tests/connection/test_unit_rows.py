"""Unit rows: the values of torch's normalize and its gradient, rows of zeros included."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from cmcr.connection.unit_rows import unit_rows


def drawn(batch: int, width: int) -> torch.Tensor:
    return torch.randn(batch, width, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("length", [1e-20, 1e-3, 1.0, 1e20])
def test_values_and_gradient_are_those_of_torch(length):
    rows, slope = length * drawn(7, 5), drawn(7, 5).flip(0)
    rows[2] = 0.0
    found, expected = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    ours, torchs = unit_rows(found), F.normalize(expected, dim=1)
    assert torch.equal(ours, torchs)
    ours.backward(slope)
    torchs.backward(slope)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-12, atol=1e-15 / length)


def test_gradient_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(unit_rows, drawn(4, 3).requires_grad_())


def test_the_gradient_that_comes_in_is_left_as_it_is():
    rows, slope = drawn(4, 3).requires_grad_(), drawn(4, 3)
    before = slope.clone()
    unit_rows(rows).backward(slope)
    assert torch.equal(slope, before)

"""Rows scaled to unit length, with a gradient that needs one tensor of their size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_SMALLEST = 1e-12  # as torch.nn.functional.normalize


def unit_rows(rows: Tensor) -> Tensor:
    """Scale rows to unit length: ``y = x / max(|x|, 1e-12)``; a row of zeros stays zero.

    As `torch.nn.functional.normalize`, whose gradient takes half a dozen tensors of the size of the rows. Of a large batch
    each is fresh memory, and that costs more than the arithmetic.

    Args:
        rows: `(B, K)`.

    Returns:
        `(B, K)`. The gradient cannot be differentiated again.
    """
    scaled: Tensor = _UnitRows.apply(rows)  # type: ignore[no-untyped-call]
    return scaled


class _UnitRows(torch.autograd.Function):
    """The gradient is ``(g - (y . g) y) / |x|``, and ``g / 1e-12`` of a row shorter than that."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        short = norms < _SMALLEST
        norms.clamp_(min=_SMALLEST)
        scaled = rows / norms
        ctx.save_for_backward(scaled, norms, short)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        scaled, norms, short = ctx.saved_tensors
        gradient = scaled * slope
        along = gradient.sum(dim=1, keepdim=True).masked_fill_(short, 0.0)
        torch.mul(scaled, along, out=gradient)
        return torch.sub(slope, gradient, out=gradient).div_(norms)

"""The symmetric InfoNCE loss without its B x B table: logits are computed, used and forgotten tile by tile.

The forward pass streams the tiles and keeps one log-sum-exp for each row and each column. The backward pass computes each
tile again and multiplies it into the gradients at once: four products of `B x B x K` instead of three, and some 50 MB
instead of several `B x B` tables, whose traffic costs more than the fourth product. A batch that is one tile keeps it.

The pairs themselves, the diagonal, are left out of the sums. With the rest ``o_i = log sum_{j != i} e^{s_ij}`` the loss of a
row is ``softplus(o_i - s_ii)`` and the slope of its pair ``-sigmoid(o_i - s_ii)``. Both stay exact where the loss is nearly
0 and ``p_ii - 1`` would be lost to rounding.

Logits are in base 2 inside, since powers of 2 are faster than powers of e.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cmcr.engine.precision import fast_float32
from cmcr.engine.streamed_softmax import slices, tile_side

_RAISED = 40  # gradients are 2^40 times too large until the end: small ones would be denormal numbers, which are slow


class TiledInfoNCE(torch.autograd.Function):
    """``apply(left, right, temperature, coarse)``: the loss of two batches `(B, K)` of paired rows (see `info_nce`).

    `coarse` computes the two products of the gradient in bfloat16; logits and sums keep the dtype of the rows.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, temperature: float, coarse: bool) -> Tensor:
        """Stream the tiles, and keep one log-sum-exp for each row and column."""
        scale = math.log2(math.e) / temperature
        with fast_float32():
            pairs = (left * right).sum(dim=1) * scale
            row_rest, column_rest, kept = _rest_sums(left, right, scale)
        row_lead, column_lead = (row_rest - pairs) * math.log(2), (column_rest - pairs) * math.log(2)
        losses = F.softplus(row_lead, threshold=40) + F.softplus(column_lead, threshold=40)
        pull = torch.sigmoid(row_lead) + torch.sigmoid(column_lead)
        row_sums, column_sums = torch.logaddexp2(row_rest, pairs), torch.logaddexp2(column_rest, pairs)
        ctx.save_for_backward(left, right, row_sums, column_sums, pull)
        ctx.temperature, ctx.coarse, ctx.kept = temperature, coarse, kept
        return losses.mean() / 2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Compute the tiles again, and multiply each into both gradients."""
        left, right, row_sums, column_sums, pull = ctx.saved_tensors
        kept, ctx.kept = ctx.kept, None  # the tile is overwritten: a second backward pass computes it again
        factors = torch.bfloat16 if ctx.coarse else left.dtype
        left_factor, right_factor = left.to(factors), right.to(factors)
        pull = (pull * -(2.0**_RAISED))[:, None]
        of_left, of_right = pull * right, pull * left  # of the pairs alone: bfloat16 would lose what is left of them
        with fast_float32():
            for rows, columns, logits, spare in _tiles(left, right, math.log2(math.e) / ctx.temperature, kept):
                # 2^(s_ij - row sum) + 2^(s_ij - column sum), without the pairs.
                torch.sub(logits, (row_sums[rows] - _RAISED)[:, None], out=spare).exp2_()
                cells = spare.add_(logits.sub_(column_sums[columns] - _RAISED).exp2_())
                if rows == columns:
                    cells.diagonal().zero_()
                cells = cells.to(factors)
                _add_product(of_left[rows], cells, right_factor[columns])
                _add_product(of_right[columns], cells.T, left_factor[rows])
        factor = slope * (2.0**-_RAISED / (2 * len(left) * ctx.temperature))
        return of_left.mul_(factor), of_right.mul_(factor), None, None


def _rest_sums(left: Tensor, right: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return ``log2 sum 2^logit`` of every row and every column without the pairs, and the logits if they are one tile."""
    # Low enough for any logit; infinity itself would give NaN where it is subtracted from itself.
    nothing = torch.finfo(left.dtype).min / 4
    row_sums, column_sums = left.new_full((len(left),), nothing), left.new_full((len(left),), nothing)
    for rows, columns, logits, spare in _tiles(left, right, scale):
        if rows == columns:
            logits.diagonal().fill_(nothing)
        row_top, column_top = logits.amax(dim=1), logits.amax(dim=0)
        of_rows = torch.sub(logits, row_top[:, None], out=spare).exp2_().sum(dim=1).log2_().add_(row_top)
        of_columns = torch.sub(logits, column_top, out=spare).exp2_().sum(dim=0).log2_().add_(column_top)
        row_sums[rows] = torch.logaddexp2(row_sums[rows], of_rows)
        column_sums[columns] = torch.logaddexp2(column_sums[columns], of_columns)
    return row_sums, column_sums, logits if len(left) <= tile_side(left.device) else None


def _tiles(
    left: Tensor, right: Tensor, scale: float, kept: Tensor | None = None
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Compute the logits in base 2, tile by tile, or give the one that was kept.

    Yields:
        the rows and columns of a tile, its logits, and a second tile of that shape to compute in. Both are overwritten
        by the next step.
    """
    everything = slice(0, len(left))
    if kept is not None:
        yield everything, everything, kept, torch.empty_like(kept)
        return
    side = tile_side(left.device)
    room = min(side, len(left)) ** 2
    first, second = left.new_empty(room), left.new_empty(room)
    for rows in slices(len(left), side):
        scaled = left[rows] * scale
        for columns in slices(len(left), side):
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            logits, spare = (buffer[: shape[0] * shape[1]].view(shape) for buffer in (first, second))
            torch.mm(scaled, right[columns].T, out=logits)
            yield rows, columns, logits, spare


def _add_product(sums: Tensor, first: Tensor, second: Tensor) -> None:
    """Add a product to sums of its own or of a wider dtype, in place."""
    if first.dtype == sums.dtype:
        sums.addmm_(first, second)
    else:
        sums.add_(torch.mm(first, second))

"""Softmax means over a memory, one tile of logits at a time: the kernel of semantic consistency.

For queries q and memory rows v it computes ``sum_k 2^(s q.v_k) v_k / sum_k 2^(s q.v_k)``, with a shift for each query that
keeps the powers in range (the online softmax of Milakov and Gimelshein, 2018).

Both sides carry extra columns. The memory's rows end in ones, so one product gives the weighted sum of the rows and, beside
it, the sum of the weights. The queries end in minus their shift, so the product of the logits subtracts it before it rounds:
in bfloat16 the logits near the maximum, which decide, are then rounded to thousandths instead of halves.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_ONES = 2  # columns of ones: the shift, in two parts that bfloat16 can hold
_COLUMNS = 16  # products whose widths are multiples of it are faster
_FIRST_ROWS = 256  # of the memory, which give the first shift
# How far, in powers of two, logits may rise above the shift before it is raised. In float32 only overflow matters; in
# bfloat16 the rounding of a logit grows with its distance from the shift.
_HEADROOM = {torch.bfloat16: 8.0, torch.float32: 60.0, torch.float64: 60.0}
_LOOKS = 4


def tile_side(device: torch.device) -> int:
    """Queries, and memory rows, of one tile of logits: on a CPU the logits must stay in the last-level cache."""
    return 2048 if device.type == "cpu" else 8192


def queries_at_once(width: int, device: torch.device) -> int:
    """How many queries keep their sums while the memory passes by: about 100 MB of scratch on a CPU, 0.5 GB on a GPU."""
    side = tile_side(device)
    numbers = 2**22 if device.type == "cpu" else 2**26
    return max(1, numbers // (width * side)) * side


class StreamedSoftmax:
    """Softmax means of a memory for some queries; blocks of the memory are added one after another.

    Args:
        queries: `(Q, D)`, on the device that computes.
        scale: of the logits, in powers of two: log2(e) / temperature.
        products: dtype of the products, float32, float64 or bfloat16.
        sums: dtype of the sums, float32 or float64.
    """

    def __init__(self, queries: Tensor, scale: float, products: torch.dtype, sums: torch.dtype) -> None:
        self._side = tile_side(queries.device)
        self._width = queries.shape[1]
        columns = -(-(self._width + _ONES) // _COLUMNS) * _COLUMNS
        self._queries = queries.new_zeros((len(queries), columns), dtype=products)
        self._queries[:, : self._width] = queries.to(sums) * scale
        self._shift = queries.new_zeros(len(queries), dtype=sums)
        self._sums = queries.new_zeros((len(queries), columns), dtype=sums)
        self._block = queries.new_zeros((self._side, columns), dtype=products)
        self._block[:, self._width : self._width + _ONES] = 1.0
        self._logits = queries.new_empty(min(self._side, len(queries)) * self._side, dtype=products)
        self._empty = True

    def add(self, memory: Tensor) -> None:
        """Add memory rows `(n, D)`, at most `tile_side` of them."""
        block = self._block[: len(memory)]
        block[:, : self._width] = memory
        for rows in slices(len(self._queries), self._side):
            if self._empty:
                self._raise_shift(rows, block[:_FIRST_ROWS])
            self._add_tile(rows, block)
        self._empty = False

    def means(self) -> Tensor:
        """Return the means `(Q, D)` over all rows added so far."""
        return self._sums[:, : self._width] / self._sums[:, self._width, None]

    def _add_tile(self, rows: slice, block: Tensor) -> None:
        queries = self._queries[rows]
        logits = self._logits[: len(queries) * len(block)].view(len(queries), len(block))
        torch.mm(queries, block.T, out=logits)
        above = (_highest(logits) > _HEADROOM[logits.dtype]).nonzero()[:, 0]
        if len(above):
            logits[above] = self._raise_shift(above + rows.start, block)
        weights = logits.exp2_()
        sums = self._sums[rows]
        if weights.dtype == sums.dtype:
            sums.addmm_(weights, block)
        else:
            sums.add_(torch.mm(weights, block))

    def _raise_shift(self, rows: slice | Tensor, block: Tensor) -> Tensor:
        """Bring the shift of some queries to their largest logit in a block, and return their logits under it.

        What a large logit lost when it was rounded to bfloat16 shows once it is subtracted, so another look corrects the
        first.
        """
        for _ in range(_LOOKS):
            logits = torch.mm(self._queries[rows], block.T)
            rise = logits.amax(dim=1).to(self._shift.dtype)
            if rise.abs().max() <= 1:
                break
            self._shift[rows] += rise
            high = self._shift[rows].to(self._queries.dtype)
            self._queries[rows, self._width] = -high
            self._queries[rows, self._width + 1] = -(self._shift[rows] - high).to(self._queries.dtype)
            # Downwards is only a correction of the rise before it, or sums of nothing: 0 * 2^144 would be no number.
            self._sums[rows] *= torch.exp2((-rise).clamp(max=100.0))[:, None]
        return logits


def _highest(logits: Tensor) -> Tensor:
    """Return the largest logit of each row, exact where it is above zero."""
    if logits.dtype != torch.bfloat16:
        return logits.amax(dim=1)
    # Integers of the same bits are in the same order above zero, and torch finds their maximum ten times as fast.
    return logits.view(torch.int16).amax(dim=1).view(torch.bfloat16)


def slices(count: int, step: int) -> Iterator[slice]:
    """Cut a count into consecutive pieces of at most `step`."""
    return (slice(start, min(start + step, count)) for start in range(0, count, step))

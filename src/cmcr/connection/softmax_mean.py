"""Softmax means of a memory, one tile of logits at a time: the arithmetic of semantic consistency.

On a CPU torch's attention kernel does float32 (`attention_mean`); everything else is done here. For queries q and rows v
it is ``sum_k 2^(s q . v_k) v_k / sum_k 2^(s q . v_k)``, with a shift for each query that keeps the powers in range (the
online softmax of Milakov and Gimelshein, 2018). The memory's rows carry a one beyond their width, so that one product gives
the sum of the weighted rows and the sum of the weights beside it.

In bfloat16 the memory carries three ones, and the queries minus their shift there, in three parts that add up to it
exactly: the product subtracts it before it rounds, and logits near the maximum, which decide, are rounded to thousandths
instead of halves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cmcr.connection.attention_mean import AttentionMean, has_kernel
from cmcr.connection.peers import Peers

_SCRATCH_BYTES = 61 * 10**6
_SCRATCH_BYTES_ON_GPU = 512 * 2**20
_SIDES = (8192, 4096, 2048, 1024, 512, 256, 128, 64)
_LARGEST_SIDE_ON_CPU = 2048  # beyond it the logits leave the cache
_BYTES_READ = 4 + 4 + 2  # a number of a memory on disk: this block and the next one in float32, and that one's bytes
_ROWS_ATTENDED = 4096
_ONES = 3
_COLUMNS = 16  # widths that are multiples of it are multiplied faster
_FIRST_ROWS = 256  # of the memory, which give the first shift
# How far, in powers of two, logits may rise above the shift before it is raised. In float32 only overflow matters; in
# bfloat16 the rounding of a logit grows with its distance from the shift.
_HEADROOM = 60.0
_HEADROOM_IN_BFLOAT16 = 8.0
_LOOKS = 4
_LARGEST_SCALE_IN_BFLOAT16 = 2.0**17  # beyond it the difference of logit and shift drowns in the rounding of its sums


@dataclass(frozen=True)
class Tiling:
    """In what pieces a softmax mean is computed.

    Attributes:
        queries: whose sums are held while the memory passes by, once for all of them.
        side: queries, and rows of the memory, of a tile of logits.
        products: dtype of the products, float32, float64 or bfloat16.
        sums: dtype of the sums, float32 or float64.
    """

    queries: int
    side: int
    products: torch.dtype
    sums: torch.dtype


def tiling_for(width: int, products: torch.dtype, sums: torch.dtype, device: torch.device) -> Tiling:
    """Choose the largest pieces whose scratch stays under 64 MB on a CPU (two rows of a tile at least, however wide).

    On GPUs tiles are larger and the scratch is half a gigabyte.
    """
    on_cpu = device.type == "cpu"
    if on_cpu and products == torch.float32 and has_kernel():
        return _tiling_of_attention(width)
    room = _SCRATCH_BYTES if on_cpu else _SCRATCH_BYTES_ON_GPU
    columns = _columns(width)
    a_query = columns * (products.itemsize + sums.itemsize)
    for side in _SIDES:
        if on_cpu and side > _LARGEST_SIDE_ON_CPU:
            continue
        # The tile; a block of the memory as it is multiplied; the second product.
        tile = side * _room_of_a_row(side, columns, products, sums) * products.itemsize
        fixed = tile + side * columns * (_BYTES_READ + products.itemsize + products.itemsize)
        if fixed + side * a_query <= room:
            return Tiling((room - fixed) // (side * a_query) * side, side, products, sums)
    return Tiling(_SIDES[-1], _SIDES[-1], products, sums)


def _tiling_of_attention(width: int) -> Tiling:
    """Choose blocks of a memory, and how many queries they pass by: the kernel has tiles of its own."""
    side = min(_ROWS_ATTENDED, max(1, _SCRATCH_BYTES // (2 * _BYTES_READ * width)))
    # The queries, their means so far and those of a block, in float32.
    queries = (_SCRATCH_BYTES - side * _BYTES_READ * width) // (3 * 4 * width + 64)
    return Tiling(max(1, queries), side, torch.float32, torch.float32)


def softmax_mean(queries: Tensor, scale: float, tiling: Tiling) -> AttentionMean | SoftmaxSums:
    """Begin the softmax mean of a memory for some queries `(Q, D)`, in the way that is fastest there."""
    if tiling.products == torch.float32 and queries.device.type == "cpu" and has_kernel():
        return AttentionMean(queries, scale)
    return SoftmaxSums(queries, scale, tiling)


def over_processes(means: Tensor, weights: Tensor, peers: Peers) -> Tensor:
    """Merge the means `(Q, D)` over parts of a memory, one a process, by the logarithms of their weights `(Q, 1)`."""
    if peers.size == 1:
        return means
    share = torch.exp2(weights - peers.max_(weights.clone()))
    part = torch.where(share > 0, means * share, 0.0)  # a process without rows has no mean
    return peers.sum_(part) / peers.sum_(share)


class SoftmaxSums:
    """Sums over a memory for some queries, which blocks of the memory are added to one after another.

    Args:
        queries: `(Q, D)`.
        scale: of the logits, in powers of two: log2(e) / temperature.
        tiling: the pieces.
    """

    def __init__(self, queries: Tensor, scale: float, tiling: Tiling) -> None:
        self._side = tiling.side
        self._width = queries.shape[1]
        columns = _columns(self._width)
        if tiling.products == torch.bfloat16:
            scale = min(scale, _LARGEST_SCALE_IN_BFLOAT16)
        self._scaled = queries.new_zeros((len(queries), columns), dtype=tiling.products)
        for rows in slices(len(queries), tiling.side):
            self._scaled[rows, : self._width] = queries[rows].to(tiling.sums) * scale
        self._shift = queries.new_full((len(queries),), -torch.inf, dtype=tiling.sums)
        self._sums = queries.new_zeros((len(queries), columns), dtype=tiling.sums)
        self._block = queries.new_zeros((tiling.side, columns), dtype=tiling.products)
        self._block[:, self._width : self._width + _ONES] = 1.0
        rows = min(tiling.side, len(queries))
        self._tile = queries.new_empty(
            rows * _room_of_a_row(tiling.side, columns, tiling.products, tiling.sums), dtype=tiling.products
        )
        self._product = queries.new_empty((rows, columns), dtype=tiling.products)

    def add(self, memory: Tensor) -> None:
        """Add rows of the memory, `(n, D)`, at most a tile's side of them."""
        block = self._block[: len(memory)]
        block[:, : self._width] = memory
        for rows in slices(len(self._scaled), self._side):
            self._add_tile(rows, block)

    def finished(self) -> tuple[Tensor, Tensor]:
        """Give the means `(Q, D)` and the logarithms, to base 2, of their weights `(Q, 1)`. The sums end with it."""
        del self._scaled, self._block, self._tile, self._product  # their room is needed for the result
        weight = self._sums[:, self._width : self._width + 1]
        return self._sums[:, : self._width] / weight, weight.log2() + self._shift[:, None]

    def _add_tile(self, rows: slice, block: Tensor) -> None:
        shape = len(self._scaled[rows]), len(block)
        logits = self._tile[: shape[0] * shape[1]].view(shape)
        if logits.dtype == torch.bfloat16:
            self._shifted_in_bfloat16(rows, block, logits)
        else:
            self._shifted(rows, block, logits)
        weights = logits.exp2_()
        sums = self._sums[rows]
        if weights.dtype == sums.dtype:
            sums.addmm_(weights, block)
            return
        product = torch.mm(weights, block, out=self._product[: shape[0]])
        # torch would allocate, for each tile, the product in the dtype of the sums; the room of the weights is free now.
        sums.add_(self._tile.view(sums.dtype)[: product.numel()].view(product.shape).copy_(product))

    def _shifted(self, rows: slice, block: Tensor, logits: Tensor) -> None:
        torch.mm(self._scaled[rows], block.T, out=logits)
        shift, highest = self._shift[rows], logits.amax(dim=1)
        above = highest > shift + _HEADROOM
        if above.any():
            self._raise_shift(rows, torch.where(above, highest, shift))
        logits.sub_(self._shift[rows, None])

    def _shifted_in_bfloat16(self, rows: slice, block: Tensor, logits: Tensor) -> None:
        if self._shift[rows.start] == -torch.inf:
            first = block[:_FIRST_ROWS]
            self._shift[rows] = 0.0
            self._shift_to_highest(rows, first, self._logits_of(rows, first).amax(dim=1))
        torch.mm(self._scaled[rows], block.T, out=logits)
        highest = _highest(logits)
        above = (highest > _HEADROOM_IN_BFLOAT16).nonzero()[:, 0]
        if len(above):
            above = above.expand(max(2, len(above)))  # a single row is multiplied five times as slowly as two
            logits[above] = self._shift_to_highest(above + rows.start, block, highest[above])

    def _shift_to_highest(self, rows: slice | Tensor, block: Tensor, rise: Tensor) -> Tensor:
        """Bring the shift of some queries to their largest logit, `rise` above it so far, and give their logits.

        What a large logit loses when it is rounded to bfloat16 shows once it is subtracted, so another look corrects the
        first.
        """
        for _ in range(_LOOKS):
            self._raise_shift(rows, self._shift[rows] + rise)
            logits = self._logits_of(rows, block)
            rise = logits.amax(dim=1)
            if rise.abs().max() <= 1:
                break
        return logits

    def _logits_of(self, rows: slice | Tensor, block: Tensor) -> Tensor:
        return torch.mm(self._scaled[rows], block.T)

    def _raise_shift(self, rows: slice | Tensor, shift: Tensor) -> None:
        """Give some queries another shift, and scale their sums down to it."""
        shift = shift.to(self._shift.dtype)
        if self._scaled.dtype == torch.bfloat16:
            left = shift.float()
            for column in range(self._width, self._width + _ONES):
                part = left.to(torch.bfloat16)
                self._scaled[rows, column] = -part
                left = left - part
        # Downwards only a correction of a rise before it, or sums of nothing: 0 * 2^144 would be no number.
        self._sums[rows] *= torch.exp2((self._shift[rows] - shift).clamp(max=100.0))[:, None]
        self._shift[rows] = shift


def _highest(logits: Tensor) -> Tensor:
    """Give the largest bfloat16 of each row where that is above zero, something below zero elsewhere."""
    # Whole numbers of the same bits are in the same order above zero, and torch finds the largest ten times as fast.
    return logits.view(torch.int16).amax(dim=1).view(torch.bfloat16)


def _columns(width: int) -> int:
    return -(-(width + _ONES) // _COLUMNS) * _COLUMNS


def _room_of_a_row(side: int, columns: int, products: torch.dtype, sums: torch.dtype) -> int:
    """How many numbers of the products' dtype a tile needs for each query: its logits, or its product for the sums."""
    return max(side, columns * sums.itemsize // products.itemsize) if sums != products else side


def slices(count: int, step: int) -> list[slice]:
    """Cut so many things into pieces of at most `step`."""
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]

"""The symmetric InfoNCE loss without its B x B table: logits are made, used and forgotten tile by tile.

The forward pass streams the tiles and keeps one log-sum-exp per row and per column. The backward pass makes each tile
again and multiplies it into the gradients at once: four products of `B x B x K` instead of three, and a few tens of MB
instead of several tables of `B x B`, whose traffic costs more than the fourth product. A batch that is one tile keeps it
between the passes, and needs three.

The pairs themselves, the diagonal, are left out of the sums. With the rest ``o_i = log sum_{j != i} e^{s_ij}`` the loss of
a row is ``softplus(o_i - s_ii)`` and the slope of its pair is ``-sigmoid(o_i - s_ii)``. Both are exact where the loss is
nearly 0 and ``p_ii - 1`` would be lost to rounding.

Inside, logits are scaled by log2 e, since powers of 2 are faster than powers of e.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cmcr.arrays import is_number
from cmcr.connection.peers import Peers
from cmcr.connection.products import Precision, check_precision, fast_float32
from cmcr.errors import ConfigError, DimensionError, DtypeError, TooFewRowsError

_TILE = 2048  # rows and columns: on a CPU two tiles of float32 are 32 MB, of the size of a last-level cache
_TILE_OF_GPU = 8192

# Powers of 2 that float32 can tell apart lie between 2^-126 and 2^127. The limits below keep what counts inside.
_SMALLEST_SUM, _LARGEST_SUM = 2.0**-90, 2.0**100
_RAISED = 40  # gradients are 2^40 times too large until the end: small ones would be denormal, and slow


def info_nce(
    left: Tensor, right: Tensor, temperature: float, *, precision: Precision = "float32", peers: Peers | None = None
) -> Tensor:
    """Contrast two batches of paired rows symmetrically.

    ``-1/2 mean_i [ log softmax_j(l_i . r_j / t)_i + log softmax_j(r_i . l_j / t)_i ]``, negatives from the batch. With
    the overlap's rows this is the paper's L_ttc, with the semantically consistent rows its L_avc.

    Exact, with a running maximum: rows need not be unit rows. A logit is as exact as its cosine, whose rounding in float32
    is some 1e-7, divided by the temperature: at 1e-5 and below that decides between rows that nearly coincide. The scratch
    space is some 50 MB on a CPU whatever B, besides what is as large as the inputs. The gradient cannot be differentiated
    again.

    With several processes each brings its own pairs, as many as it likes, and the negatives are the rows of all. The
    value is then the loss of the whole batch in every process, and a row's gradient that of the whole batch's loss:
    gradients of shared parameters must be summed over the processes, not averaged. All processes must call `backward`
    alike.

    Args:
        left: `(B, K)` unit rows.
        right: `(B, K)` unit rows; row i belongs to row i of `left`.
        temperature: above 0; the paper uses 0.01 in both losses.
        precision: `"bfloat16"` computes the products of the gradient in bfloat16, which puts it off by 2 to 3
            thousandths, or up to 8 late in training among negatives that nearly coincide; the loss stays in float32.
            Rows of float64 are computed in float64 either way.
        peers: the processes that share the batch; by default this one is alone.

    Returns:
        Scalar, 0 or more; `log B` when nothing can be told apart. float64 if an input is, else float32.

    Raises:
        DtypeError: an input is no torch tensor of floating point.
        DimensionError: the shapes differ or have not two axes.
        TooFewRowsError: there is no pair; of several processes some may have none.
        ConfigError: a temperature that is not above 0, or an unknown precision.
    """
    check_pairs(left, right)
    together = peers or Peers()
    if together.size == 1 and not len(left):
        raise TooFewRowsError("expected a batch of at least 1 pair, got 0.")
    if not (is_number(temperature) and temperature > 0):
        raise ConfigError(f"temperature: expected a finite number above 0, got {temperature!r}.")
    check_precision(precision)
    loss: Tensor = _InfoNCE.apply(left, right, float(temperature), precision, together)  # type: ignore[no-untyped-call]
    return loss


def check_pairs(left: Tensor, right: Tensor) -> None:
    """Refuse two batches that are not paired row by row, with a `DimensionError` or, if they are no rows, a `DtypeError`."""
    for side in (left, right):
        if not (isinstance(side, Tensor) and side.is_floating_point()):
            kind = side.dtype if isinstance(side, Tensor) else type(side).__name__
            raise DtypeError(f"expected two batches that are torch tensors of floating point, got {kind}.")
    if left.ndim != 2 or left.shape != right.shape:
        raise DimensionError(
            f"expected two batches of one shape (B, K), got {tuple(left.shape)} and {tuple(right.shape)}."
        )


class _InfoNCE(torch.autograd.Function):
    """Tie the two passes over the tiles together."""

    @staticmethod
    def forward(
        ctx: Any, left: Tensor, right: Tensor, temperature: float, precision: Precision, peers: Peers
    ) -> Tensor:
        working = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
        own, partners = left.to(working), right.to(working)
        columns, place = peers.all_rows(partners)
        scale = math.log2(math.e) / temperature
        with fast_float32():
            pairs = _pair_logits(own, partners, scale)
            row_rest, column_rest, ctx.kept = _rest_sums(own, columns, scale, place.start)
        column_rest = _merged(column_rest, peers)
        row_lead = (row_rest - pairs) * math.log(2)  # of the negatives over the pair
        column_lead = (column_rest[place] - pairs) * math.log(2)
        losses = F.softplus(row_lead, threshold=40) + F.softplus(column_lead, threshold=40)

        all_pairs, _ = peers.all_rows(pairs)
        row_sums = torch.logaddexp2(row_rest, pairs)
        column_sums = torch.logaddexp2(column_rest, all_pairs)
        pull = torch.sigmoid(row_lead) + torch.sigmoid(column_lead)
        # One process saves the inputs themselves; several save the rows of all.
        ctx.save_for_backward(left, right if peers.size == 1 else columns, row_sums, column_sums, row_rest, pull)
        ctx.temperature, ctx.precision, ctx.peers, ctx.place = temperature, precision, peers, place
        ctx.dtype_of_right = right.dtype
        return peers.sum_(losses.sum()) / (2 * len(columns))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        left, right, row_sums, column_sums, row_rest, pull = ctx.saved_tensors
        own, columns = left.to(pull.dtype), right.to(pull.dtype)
        scale = math.log2(math.e) / ctx.temperature
        coarse = ctx.precision == "bfloat16" and pull.dtype == torch.float32
        gradient = _Gradient(own, columns, coarse, ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        kept, ctx.kept = ctx.kept, None  # the first pass overwrites it
        with fast_float32():
            common = _common_shift(row_sums, column_sums, row_rest)
            for rows, cols, logits, spare in _tiles(own, columns, scale, kept):
                cells = _slopes(logits, spare, row_sums[rows] - _RAISED, column_sums[cols] - _RAISED, common)
                _put_pull(cells, pull[rows], rows.start + ctx.place.start - cols.start)
                gradient.add(cells, logits, rows, cols)
            to_left, to_right = gradient.finish(pull, ctx.peers, ctx.place)
        factor = slope * (2.0**-_RAISED / (2 * len(columns) * ctx.temperature)) if len(columns) else slope
        if to_left is not None:
            to_left = to_left.mul_(factor).to(left.dtype)
        if to_right is not None:
            to_right = to_right.mul_(factor).to(ctx.dtype_of_right)
        return to_left, to_right, None, None, None


def _tile_edge(device: torch.device) -> int:
    return _TILE if device.type == "cpu" else _TILE_OF_GPU


def is_one_tile(rows: int, device: torch.device) -> bool:
    """Tell whether the logits of a batch are one tile, which is kept: three products instead of four."""
    return rows <= _tile_edge(device)


def _blocks(count: int, edge: int) -> Iterator[slice]:
    return (slice(start, min(start + edge, count)) for start in range(0, count, edge))


def _tiles(
    left: Tensor, right: Tensor, scale: float, kept: Tensor | None = None
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Compute the logits in base 2, tile by tile, or give those that were kept.

    Yields:
        the rows and columns of a tile, its logits, and a second tile of that shape to compute in. Both are overwritten
        by the next step.
    """
    if kept is not None:
        yield slice(0, len(left)), slice(0, len(right)), kept, torch.empty_like(kept)
        return
    edge = _tile_edge(left.device)
    room = min(edge, len(left)) * min(edge, len(right))
    first, second = left.new_empty(room), left.new_empty(room)
    for rows in _blocks(len(left), edge):
        scaled = left[rows] * scale
        for cols in _blocks(len(right), edge):
            shape = (rows.stop - rows.start, cols.stop - cols.start)
            logits, spare = (buffer[: shape[0] * shape[1]].view(shape) for buffer in (first, second))
            torch.mm(scaled, right[cols].T, out=logits)
            yield rows, cols, logits, spare


def _pair_logits(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Compute the logits of the pairs `(B,)`, block by block."""
    pairs = left.new_empty(len(left))
    for rows in _blocks(len(left), _tile_edge(left.device)):
        pairs[rows] = (left[rows] * right[rows]).sum(dim=1) * scale
    return pairs


def _rest_sums(left: Tensor, right: Tensor, scale: float, first_pair: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Sum every row and every column of the logits, without the pairs.

    Args:
        left: `(b, K)` own rows.
        right: `(B, K)` rows of all.
        scale: of the logits.
        first_pair: column that is the partner of row 0.

    Returns:
        ``log2 sum 2^logit`` of the rows `(b,)` and, over the own rows only, of the columns `(B,)`; the logits, apart from
        those of the pairs, where one tile holds them all.
    """
    # Nothing can be so low that it is not above this; infinity itself would give NaN where it is taken from itself.
    nothing = torch.finfo(left.dtype).min / 4
    row_sums, column_sums = left.new_full((len(left),), nothing), left.new_full((len(right),), nothing)
    shift = 0.0
    for rows, cols, logits, spare in _tiles(left, right, scale):
        logits.diagonal(rows.start + first_pair - cols.start).fill_(nothing)
        of_rows, of_columns, shift = _tile_sums(logits, spare, shift)
        row_sums[rows] = torch.logaddexp2(row_sums[rows], of_rows)
        column_sums[cols] = torch.logaddexp2(column_sums[cols], of_columns)
    return row_sums, column_sums, logits if is_one_tile(max(len(left), len(right)), left.device) else None


def _tile_sums(logits: Tensor, spare: Tensor, shift: float) -> tuple[Tensor, Tensor, float]:
    """Compute ``log2 sum 2^logit`` of the rows and the columns of a tile.

    The powers are taken once, with a shift that did for the tile before. If a sum then comes near overflow or underflow,
    they are taken again, with the maximum of each row and of each column, and a new shift is found.
    """
    powers = torch.sub(logits, shift, out=spare).exp2_() if shift else torch.exp2(logits, out=spare)
    of_rows, of_columns = powers.sum(dim=1), powers.sum(dim=0)
    if _far_from_limits(of_rows, of_columns):
        return of_rows.log2_().add_(shift), of_columns.log2_().add_(shift), shift
    row_top, column_top = logits.amax(dim=1), logits.amax(dim=0)
    of_rows = torch.sub(logits, row_top[:, None], out=spare).exp2_().sum(dim=1).log2_().add_(row_top)
    of_columns = torch.sub(logits, column_top, out=spare).exp2_().sum(dim=0).log2_().add_(column_top)
    lowest, highest = torch.stack(torch.aminmax(torch.cat([row_top, column_top]))).tolist()
    return of_rows, of_columns, (lowest + highest) / 2


def _far_from_limits(of_rows: Tensor, of_columns: Tensor) -> bool:
    ends = torch.stack([*torch.aminmax(of_rows), *torch.aminmax(of_columns)]).tolist()  # one wait for a GPU, not four
    return min(ends) >= _SMALLEST_SUM and max(ends) <= _LARGEST_SUM


def _merged(sums: Tensor, peers: Peers) -> Tensor:
    """Merge the processes' ``log2 sum 2^logit`` of the same columns."""
    if peers.size == 1:
        return sums
    top = peers.max_(sums.clone())
    return top + peers.sum_((sums - top).exp2_()).log2_()


def _common_shift(row_sums: Tensor, column_sums: Tensor, row_rest: Tensor) -> float | None:
    """Find a shift c with which ``2^(s_ij - c)`` and ``2^(c - sum)`` are ordinary numbers for all rows and columns.

    Where s_ij - c underflows, its probability is below 2^-46. The pairs may overflow: they are computed apart.

    Returns:
        The shift nearest to 0, or None if the sums lie too far apart for one.
    """
    if not len(row_rest):
        return None
    sums = torch.cat([row_sums, column_sums])
    low, high, top = torch.stack([*torch.aminmax(sums), row_rest.max()]).tolist()
    least, most = max(top - 120, high - 120 - _RAISED), low + 80
    shift = min(max(0.0, least), most)
    return shift if shift >= least else None


def _slopes(logits: Tensor, spare: Tensor, row_sums: Tensor, column_sums: Tensor, common: float | None) -> Tensor:
    """Compute ``2^(s_ij - row sum) + 2^(s_ij - column sum)`` in the place of the tile's spare."""
    if common is None:
        torch.sub(logits, row_sums[:, None], out=spare).exp2_()
        return spare.add_(logits.sub_(column_sums).exp2_())
    powers = (logits.sub_(common) if common else logits).exp2_()
    torch.add((common - row_sums).exp2_()[:, None], (common - column_sums).exp2_(), out=spare)
    return spare.mul_(powers)


def _put_pull(cells: Tensor, pull: Tensor, offset: int) -> None:
    """Put the slopes of the pairs into a tile, where the tile has any."""
    pairs = cells.diagonal(offset)
    first = max(0, -offset)
    pairs.copy_(pull[first : first + len(pairs)].mul(-(2.0**_RAISED)))


class _Gradient:
    """The sums over tiles of ``cells @ right`` and ``cells^T @ left``, in full precision or with bfloat16 factors.

    The cells of a row add up to little, and late in training the rows that matter resemble its partner: what bfloat16
    loses of a cell then weighs more than the result. So it is summed and charged to the partner, and what bfloat16 loses
    of the partner itself is added too.
    """

    def __init__(self, left: Tensor, right: Tensor, coarse: bool, for_left: bool, for_right: bool) -> None:
        self._left, self._right = left, right
        self.of_left = torch.zeros_like(left) if for_left else None
        self.of_right = torch.zeros_like(right) if for_right else None
        self._lost_of_rows, self._lost_of_columns = left.new_zeros(len(left)), right.new_zeros(len(right))
        dtype = torch.bfloat16 if coarse else left.dtype
        self._left_factor, self._right_factor = left.to(dtype), right.to(dtype)
        self._coarse = _CoarseProducts(left, right) if coarse else None

    def add(self, cells: Tensor, spare: Tensor, rows: slice, cols: slice) -> None:
        """Add what a tile contributes; it and the spare one are overwritten."""
        if self._coarse:
            cells, lost = self._coarse.rounded(cells, spare)
            self._lost_of_rows[rows] += lost.sum(dim=1)
            self._lost_of_columns[cols] += lost.sum(dim=0)
        add_product = self._coarse.add_product if self._coarse else Tensor.addmm_
        if self.of_left is not None:
            add_product(self.of_left[rows], cells, self._right_factor[cols])
        if self.of_right is not None:
            add_product(self.of_right[cols], cells.T, self._left_factor[rows])

    def finish(self, pull: Tensor, peers: Peers, place: slice) -> tuple[Tensor | None, Tensor | None]:
        """Give the gradients of the own rows, whose partners stand at `place`."""
        of_left, of_right = self.of_left, self.of_right
        if of_right is not None:
            of_right = peers.sum_(of_right)[place]
        if self._coarse and of_left is not None:
            _mend(of_left, self._lost_of_rows, pull, self._right[place])
        if self._coarse and of_right is not None:
            _mend(of_right, peers.sum_(self._lost_of_columns)[place], pull, self._left)
        return of_left, of_right


class _CoarseProducts:
    """Products of bfloat16 factors, added to sums of float32 without an allocation for each tile."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        edge = _tile_edge(left.device)
        rows, cols = min(edge, len(left)), min(edge, len(right))
        self._cells = left.new_empty(rows * cols, dtype=torch.bfloat16)
        self._product = left.new_empty(max(rows, cols) * left.shape[1], dtype=torch.bfloat16)
        self._widened = torch.empty_like(self._product, dtype=left.dtype)

    def rounded(self, cells: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
        """Give the cells in bfloat16, and what they lost by it in the place of the cells."""
        coarse = self._cells[: cells.numel()].view(cells.shape).copy_(cells)
        return coarse, cells.sub_(spare.copy_(coarse))

    def add_product(self, sums: Tensor, first: Tensor, second: Tensor) -> None:
        """Add a product to the sums, in their place."""
        product = self._product[: sums.numel()].view(sums.shape)
        torch.mm(first, second, out=product)
        sums.add_(self._widened[: sums.numel()].view(sums.shape).copy_(product))


def _mend(gradient: Tensor, lost: Tensor, pull: Tensor, partners: Tensor) -> None:
    pairs = pull.mul(-(2.0**_RAISED)).bfloat16().to(pull.dtype)
    for rows in _blocks(len(gradient), _tile_edge(gradient.device)):
        partner = partners[rows]
        gradient[rows] += lost[rows, None] * partner + pairs[rows, None] * (partner - partner.bfloat16())

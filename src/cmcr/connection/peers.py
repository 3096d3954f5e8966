"""Several processes that compute one thing together, under torch.distributed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Peers:
    """The processes of torch.distributed's default group, or this one alone.

    Every process must make the same calls in the same order.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by the sum of all processes' tensors of its shape."""
        if self.size > 1:
            distributed.all_reduce(tensor, distributed.ReduceOp.SUM)
        return tensor

    def max_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by the largest values of all processes' tensors of its shape."""
        if self.size > 1:
            distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor

    def all_rows(self, own: Tensor) -> tuple[Tensor, slice]:
        """Bring the rows of all processes together, in the order of ranks; processes may have different numbers of them.

        Returns:
            all rows `(n, ...)`, and where this process's own stand in them.
        """
        if self.size == 1:
            return own, slice(0, len(own))
        counts = torch.zeros(self.size, dtype=torch.int64, device=own.device)
        counts[self.rank] = len(own)
        before = [0, *self.sum_(counts).cumsum(0).tolist()]
        place = slice(before[self.rank], before[self.rank + 1])
        # A sum of zeros and the rows: any backend can do it, and uneven counts need nothing more.
        rows = own.new_zeros((before[-1], *own.shape[1:]))
        rows[place] = own
        return self.sum_(rows), place

    def part_of(self, count: int) -> slice:
        """Tell this process's share of `count` things: consecutive, equal to within one."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


def peers_here() -> Peers:
    """Find the processes that this one was started with, where torch.distributed has been initialised."""
    if distributed.is_available() and distributed.is_initialized():
        return Peers(distributed.get_rank(), distributed.get_world_size())
    return Peers()

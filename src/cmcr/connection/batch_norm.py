"""Batch normalisation over a batch of which every process holds a part."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cmcr.connection.peers import Peers


def normalized_batch(norm: nn.BatchNorm1d, rows: Tensor, peers: Peers | None = None) -> Tensor:
    """Normalise this process's rows of a batch by the statistics of the whole batch.

    In training, ``y = (x - mean) / sqrt(variance + epsilon) * gain + shift`` with the mean and the biased variance of all
    processes' rows; the running statistics, of the unbiased variance, move alike in all of them. Gradients flow through
    the statistics into the rows of every process. One process alone, and inference, take torch's own kernel.

    Args:
        norm: with gain, shift and running statistics.
        rows: `(B, D)` this process's.
        peers: the processes; None for this one alone.

    Returns:
        `(B, D)`.
    """
    if peers is None or peers.size == 1 or not norm.training:
        return norm(rows)
    # Twice over the rows: the variance as mean square less squared mean would cancel where the mean is large.
    sums = _sum(torch.cat([rows.sum(dim=0), rows.new_tensor([len(rows)])]), peers)
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = rows - mean
    variance = _sum(centred.square().sum(dim=0), peers) / count
    _follow(norm, mean.detach(), variance.detach() * (count / (count - 1)))
    return torch.addcmul(norm.bias, centred, norm.weight * torch.rsqrt(variance + norm.eps))


def _follow(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics towards those of a batch."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance, norm.momentum)
    norm.num_batches_tracked.add_(1)


class _SumOverPeers(torch.autograd.Function):
    """The sum of all processes' tensors.

    Every process's loss counts through the sum, so the gradient of a summand is the sum of their gradients.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, peers: Peers) -> Tensor:
        ctx.peers = peers
        return peers.sum_(tensor.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.peers.sum_(gradients[0].clone()), None


def _sum(tensor: Tensor, peers: Peers) -> Tensor:
    return _SumOverPeers.apply(tensor, peers)  # type: ignore[no-untyped-call]

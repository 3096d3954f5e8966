"""Softmax means in float32 on a CPU through torch's attention kernel, which keeps its tiles in each core's own cache.

Attention with a memory as keys and values is the softmax mean. The kernel gives the logarithm of each query's weight beside
the mean, so that blocks of a memory merge exactly.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_KERNEL = "_scaled_dot_product_flash_attention_for_cpu"


def has_kernel() -> bool:
    """Tell whether this torch has the kernel."""
    return hasattr(torch.ops.aten, _KERNEL)


class AttentionMean:
    """The softmax mean of a memory for some queries, to which blocks of the memory are added one after another.

    Args:
        queries: `(Q, D)` float32, on the CPU.
        scale: of the logits, in powers of two: log2(e) / temperature.
    """

    def __init__(self, queries: Tensor, scale: float) -> None:
        self._queries = queries.to(torch.float32)
        self._scale = scale * math.log(2)
        self._means = torch.empty(0)
        self._weights = torch.full((len(queries), 1), -torch.inf)

    def add(self, memory: Tensor) -> None:
        """Add rows of the memory, `(n, D)`."""
        means, weights = self._attended(memory.to(torch.float32))
        if not self._means.numel():
            self._means, self._weights = means, weights
            return
        both = torch.logaddexp(self._weights, weights)
        self._means.mul_((self._weights - both).exp_()).add_(means.mul_((weights - both).exp_()))
        self._weights = both

    def finished(self) -> tuple[Tensor, Tensor]:
        """Give the means `(Q, D)` and the logarithms, to base 2, of their weights `(Q, 1)`."""
        means = self._means if self._means.numel() else torch.zeros_like(self._queries)
        return means, self._weights * math.log2(math.e)

    def _attended(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        kernel: Any = getattr(torch.ops.aten, _KERNEL)
        keys = memory[None, None]
        means, weights = kernel(self._queries[None, None], keys, keys, scale=self._scale)
        means, weights = means[0, 0], weights.view(-1)
        # Where products overflow the kernel gives some mean, or nothing at all; no number is what they deserve.
        overflown = ~weights.isfinite()
        for query in (weights == 0).nonzero()[:, 0]:
            overflown[query] = not torch.isfinite(memory @ (self._queries[query] * self._scale)).all()
        return means.masked_fill_(overflown[:, None], torch.nan), weights[:, None]

"""Similarities of all queries with a whole corpus, a block of queries at a time: `Q` x `C` is never held."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cmcr.arrays import Array, check_finite, rows_of, working_dtype
from cmcr.errors import DimensionError

_ELEMENTS = 1 << 22  # similarities held at once: 16 MiB in float32; what is made of them takes about six times as much
_QUERIES = 1024  # a larger block multiplies no faster
_ROUNDING = 8  # units of rounding by which two computations of one inner product may differ


def comparable(queries: Array, corpus: Array) -> tuple[Tensor, Tensor]:
    """Check that queries can be compared with a corpus, and bring both to one precision and one device.

    float32 stays where it is; half precision is widened, which copies it.

    Returns:
        Queries `(Q, K)` and corpus `(C, K)` in float64 if either was, else in float32.

    Raises:
        DtypeError, DimensionError, TooFewRowsError: as `rows_of`, or widths that differ.
        NonFiniteError: NaN or infinity.
    """
    q, c = rows_of(queries, "queries").detach(), rows_of(corpus, "corpus").detach()
    if q.shape[1] != c.shape[1]:
        raise DimensionError(
            f"expected queries (Q, K) and corpus (C, K) of one width, got {tuple(q.shape)} and {tuple(c.shape)}."
        )
    check_finite(q, "queries")  # NaN compares false with everything and would rank first
    check_finite(c, "corpus")
    dtype = working_dtype(q, c)
    return q.to(dtype), c.to(device=q.device, dtype=dtype)


def similarity_blocks(queries: Tensor, corpus: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield inner products of a few queries with the whole corpus: the queries' slice and `(B, C)`, the caller's to keep.

    `B` is chosen so that a block stays small whatever `C` is. That bounds the scratch memory of every metric: under
    128 MiB, or two rows of the corpus's length where the corpus is so long that a single row takes more.
    """
    size = max(1, min(_QUERIES, _ELEMENTS // len(corpus)))
    for start in range(0, len(queries), size):
        block = slice(start, min(start + size, len(queries)))
        yield block, queries[block] @ corpus.T


def rounding_slack(lengths: Tensor) -> Tensor:
    """How far apart two computations of one inner product may lie, given the product of the lengths of its two rows.

    A matrix product may round equal columns differently, by where they stand. Similarities closer than this, about
    1e-6 for unit rows in float32 and 2e-15 in float64, are called equal, so that a duplicate is always a tie.
    """
    return _ROUNDING * torch.finfo(lengths.dtype).eps * lengths

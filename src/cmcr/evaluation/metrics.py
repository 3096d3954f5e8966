"""Metrics: pure functions over unit rows and ranks."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcr.embeddings import Array, check_finite, rows_of, working_dtype
from cmcr.errors import ConfigError, DimensionError, TooFewRowsError

_QUERY_BLOCK = 1024


def answer_ranks(queries: Array, corpus: Array, answers: NDArray[np.integer]) -> NDArray[np.int64]:
    """Rank the one right answer of each query among the whole corpus by inner product: by cosine, for unit rows.

    Tie rule: everything as similar as the answer ranks before it, so that a model that cannot tell items apart gains
    nothing. The similarities are computed in blocks of queries; `Q` x `C` is never held.

    Args:
        queries: `(Q, K)` rows.
        corpus: `(C, K)` rows.
        answers: `(Q,)` corpus row of the right answer of each query.

    Returns:
        `(Q,)` ranks, 1 is best.

    Raises:
        DimensionError: widths or lengths that do not match, or answers outside the corpus.
        NonFiniteError: NaN or infinity.
    """
    q, c = rows_of(queries, "queries"), rows_of(corpus, "corpus")
    check_finite(q, "queries")  # NaN compares false with everything and would rank first
    check_finite(c, "corpus")
    if q.shape[1] != c.shape[1] or len(answers) != len(q):
        raise DimensionError(
            f"expected queries (Q, K), corpus (C, K) and answers (Q,), got {tuple(q.shape)}, {tuple(c.shape)} and "
            f"{np.shape(answers)}."
        )
    right = torch.as_tensor(np.asarray(answers, dtype=np.int64))
    if len(right) and not (int(right.min()) >= 0 and int(right.max()) < len(c)):
        raise DimensionError(
            f"answers must be corpus rows 0..{len(c) - 1}, got {int(right.min())}..{int(right.max())}."
        )
    dtype = working_dtype(q, c)
    c = c.to(device=q.device, dtype=dtype)
    ranks = torch.empty(len(q), dtype=torch.int64)
    for start in range(0, len(q), _QUERY_BLOCK):
        block = slice(start, start + _QUERY_BLOCK)
        similarity = q[block].to(dtype) @ c.T
        answer = similarity.gather(1, right[block, None].to(q.device))
        ranks[block] = (similarity >= answer).sum(dim=1).cpu()
    return ranks.numpy()


def hit_rate(ranks: NDArray[np.integer], k: int) -> float:
    """Share of queries whose right answer is among the first k: R@k as papers report it, and top-k accuracy.

    Args:
        ranks: `(Q,)` ranks from 1.
        k: at least 1.

    Raises:
        TooFewRowsError: no queries.
        ConfigError: k below 1.
    """
    if len(ranks) == 0:
        raise TooFewRowsError("hit_rate: expected at least one rank, got none.")
    if k < 1:
        raise ConfigError(f"k: expected at least 1, got {k}.")
    return float(np.mean(np.asarray(ranks) <= k))


def bootstrap_interval(
    values: NDArray[np.floating] | NDArray[np.bool_], *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of independent values (Efron 1979).

    Args:
        values: `(n,)` one value per query, such as hit or miss.
        resamples: how often to draw n values with replacement.
        seed: of the draws.
        level: of confidence, between 0 and 1.

    Returns:
        Lower and upper bound.

    Raises:
        TooFewRowsError: no values.
    """
    given = np.asarray(values)
    if len(given) == 0:
        raise TooFewRowsError("bootstrap_interval: expected at least one value, got none.")
    rng = np.random.default_rng(seed)
    if given.dtype == np.bool_:
        # The number of hits in a resample of n hits and misses is binomial: drawn at once instead of n by n.
        means = rng.binomial(len(given), given.mean(), size=resamples) / len(given)
    else:
        means = np.array([given[rng.integers(0, len(given), size=len(given))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def modality_gap(first: Array, second: Array) -> float:
    """Distance between the means of two modalities, each of unit rows (Liang et al., NeurIPS 2022); in [0, 2].

    Args:
        first: `(n, K)` unit rows.
        second: `(m, K)` unit rows.

    Raises:
        DimensionError: widths that differ.
    """
    a, b = rows_of(first, "first"), rows_of(second, "second")
    if a.shape[1] != b.shape[1]:
        raise DimensionError(f"widths differ: {a.shape[1]} and {b.shape[1]}.")
    return float(torch.linalg.vector_norm(_mean(a) - _mean(b)))


def _mean(rows: Tensor) -> Tensor:
    return rows.to(torch.float64).mean(dim=0)

"""The shape of a common space: are pairs near, are items spread, are modalities apart, are there hubs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cmcr.arrays import Array, rows_of, unit_rows
from cmcr.errors import ConfigError, DimensionError
from cmcr.evaluation.metrics import comparable, rounding_slack, similarity_blocks


def modality_gap(first: Array, second: Array) -> float:
    """Distance between the means of two modalities (Liang et al., NeurIPS 2022); in [0, 2].

    Args:
        first: `(n, K)` unit rows.
        second: `(m, K)` unit rows.

    Raises:
        DimensionError: widths that differ.
    """
    a, b = rows_of(first, "first"), rows_of(second, "second")
    if a.shape[1] != b.shape[1]:
        raise DimensionError(f"widths differ: {a.shape[1]} and {b.shape[1]}.")
    return float(torch.linalg.vector_norm(a.double().mean(dim=0) - b.double().mean(dim=0)))


def alignment(first: Array, second: Array, *, power: float = 2.0) -> float:
    """Mean distance of the two rows of a pair, ``mean_i |x_i - y_i|^power`` (Wang and Isola, ICML 2020).

    Args:
        first: `(n, K)`, scaled to unit rows here.
        second: `(n, K)` the other item of each pair.
        power: above 0; the paper's is 2.

    Returns:
        0 where every pair coincides, at most `2**power`.

    Raises:
        DimensionError: shapes that differ.
        ConfigError: power not above 0.
        EmbeddingsError: unusable embeddings.
    """
    a, b = unit_rows(first, "first"), unit_rows(second, "second")
    if a.shape != b.shape:
        raise DimensionError(f"expected pairs of rows, got {tuple(a.shape)} and {tuple(b.shape)}.")
    if not power > 0:
        raise ConfigError(f"power: expected above 0, got {power}.")
    distance = torch.linalg.vector_norm(a.double() - b.to(a.device).double(), dim=1)
    return float((distance**power).mean())


def uniformity(rows: Array, *, sharpness: float = 2.0) -> float:
    """How evenly rows cover the sphere, ``log mean_{i<j} exp(-t |x_i - x_j|^2)`` (Wang and Isola, ICML 2020).

    Args:
        rows: `(n, K)` of one modality, n at least 2, scaled to unit rows here.
        sharpness: `t`, above 0; the paper's is 2.

    Returns:
        0 where all rows coincide, lower is more uniform, never under `-4 t`.

    Raises:
        ConfigError: sharpness not above 0.
        EmbeddingsError: unusable embeddings, or a single row.
    """
    if not sharpness > 0:
        raise ConfigError(f"sharpness: expected above 0, got {sharpness}.")
    x = unit_rows(rows, "rows", at_least=2)
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for block, cosine in similarity_blocks(x, x):
        potential = cosine.sub_(1.0).clamp_(max=0.0).mul_(2.0 * sharpness).exp_()
        potential.diagonal(offset=block.start).zero_()  # a row with itself is no pair
        total += potential.sum(dtype=torch.float64)
    return float(torch.log(total / (len(x) * (len(x) - 1))))


def k_occurrences(queries: Array, corpus: Array, k: int = 10) -> NDArray[np.int64]:
    """Count for each corpus row the queries that have it among their first k: `N_k` (Radovanović et al., JMLR 2010).

    Tie rule: a row counts where fewer than k rows are more similar, so that rows as similar as the k-th all count and
    the order of the corpus does not matter. Without ties the counts sum to `Q k`, with a k beyond the corpus to `Q C`.

    Args:
        queries: `(Q, K)` rows.
        corpus: `(C, K)` rows.
        k: at least 1.

    Returns:
        `(C,)` each from 0 to `Q`.

    Raises:
        ConfigError: k below 1.
        EmbeddingsError: unusable embeddings, or widths that differ.
    """
    if k < 1:
        raise ConfigError(f"k: expected at least 1, got {k}.")
    q, c = comparable(queries, corpus)
    longest = torch.linalg.vector_norm(c, dim=1).max()
    counts = torch.zeros(len(c), dtype=torch.int64, device=q.device)
    for block, similarity in similarity_blocks(q, c):
        kth = similarity.topk(min(k, len(c)), dim=1).values[:, -1:]
        slack = rounding_slack(torch.linalg.vector_norm(q[block], dim=1, keepdim=True) * longest)
        counts += (similarity >= kth - slack).sum(dim=0)
    return counts.cpu().numpy()


def hubness(queries: Array, corpus: Array, k: int = 10) -> float:
    """Skewness of `k_occurrences`: a few corpus rows that answer everything make it large, without hubs it is near 0.

    Args:
        queries: `(Q, K)` rows.
        corpus: `(C, K)` rows.
        k: at least 1.

    Raises:
        ConfigError, EmbeddingsError: as `k_occurrences`.
    """
    from scipy.stats import skew  # slow to import

    counts = k_occurrences(queries, corpus, k)
    return 0.0 if (counts == counts[0]).all() else float(skew(counts))  # the skewness of a constant is undefined

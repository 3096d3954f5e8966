"""Search from its definition: every row compared with every query in float64, and one sort."""

import numpy as np


def unit(rows):
    """Rows of length one, float64."""
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def best(rows, queries, k, *, order=None, allowed=None):
    """Scores and positions of the k best rows of each query: by falling score in float32, then order, then position.

    Args:
        rows: `(N, D + E)` float64, extra coordinates included.
        queries: `(Q, D + E)`.
        k: how many at most.
        order: `(N,)` None orders by position.
        allowed: `(N,)` mask, None for all.
    """
    table = (np.asarray(queries, dtype=np.float64) @ rows.T).astype(np.float32)
    positions = np.arange(len(rows)) if allowed is None else np.flatnonzero(allowed)
    order = np.arange(len(rows)) if order is None else order
    found = [positions[np.lexsort((positions, order[positions], -line[positions]))[:k]] for line in table]
    chosen = np.array(found, dtype=np.int64).reshape(len(queries), min(k, len(positions)))
    return np.take_along_axis(table, chosen, axis=1), chosen

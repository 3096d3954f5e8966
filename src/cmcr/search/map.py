"""A map of an index: a few items of every corpus in the plane of the axes along which they differ most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcr.memories.memory import Memory

MOST_ITEMS = 2000
"""Items of a corpus that the map shows."""


@dataclass(frozen=True, eq=False)
class Map:
    """Points in the plane.

    Attributes:
        axes: `(K, 2)` orthonormal, of rows of the common block less the mean of their corpus.
        positions: by corpus, `(n,)` which of its items are shown.
        points: by corpus, `(n, 2)` where.
    """

    axes: NDArray[np.float32]
    positions: tuple[NDArray[np.int64], ...]
    points: tuple[NDArray[np.float32], ...]

    def place(self, rows: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
        """Place rows of the common block `(n, K)`, such as a query's, less a mean of their kind: `(n, 2)`."""
        return np.asarray((rows - mean) @ self.axes, dtype=np.float32)


def draw_map(corpora: Sequence[Memory], means: Sequence[NDArray[np.float32]]) -> Map:
    """Draw the map of rows of the common block, those of each corpus less their mean."""
    positions, rows = [], []
    for memory, mean in zip(corpora, means, strict=True):
        count = min(len(memory), MOST_ITEMS)
        positions.append(np.arange(count) * len(memory) // count)
        rows.append(memory[positions[-1]] - mean)
    pooled = np.concatenate(rows)
    _, vectors = np.linalg.eigh((pooled.T @ pooled).astype(np.float64))  # in ascending order
    axes = np.zeros((pooled.shape[1], 2))
    axes[:, : min(2, pooled.shape[1])] = vectors[:, :-3:-1]
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), [0, 1]] < 0, -1, 1)  # either sign is an eigenvector
    kept = axes.astype(np.float32)
    return Map(kept, tuple(positions), tuple((part @ kept).astype(np.float32) for part in rows))

"""What every back-end offers: the rows of one modality, searched by inner product."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Found = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Inner products `(Q, k')` and positions `(Q, k')`, best first; k' is the smaller of k and the number of rows allowed."""


@runtime_checkable
class Index(Protocol):
    """The live rows of one modality of one space, in the block of one scale (its space's own, or the common one).

    A row is an embedding and E extra coordinates, one for each hub correction; a query has as many, which are 0 where the
    correction is not wanted. The rows are those of memories on disk, the artefact of record: an index holds nothing that
    cannot be made again from them.

    Attributes:
        kind: "exact", "faiss" or "lancedb".
        exact: whether it finds what comparing with every row finds. Scores are exact in any case.
        width: D + E.
    """

    kind: str
    exact: bool
    width: int

    def __len__(self) -> int: ...

    def search(self, queries: NDArray[np.float32], k: int, *, allowed: NDArray[np.bool_] | None = None) -> Found:
        """Find the rows with the largest inner products.

        Args:
            queries: `(Q, D + E)` float32.
            k: how many, at least 1.
            allowed: `(N,)` which rows count: first the filter, then the k best of what is left, exactly, in every back-end.

        Returns:
            scores and positions; of equal scores that were compared the smaller id comes first, then the smaller position.
        """
        ...

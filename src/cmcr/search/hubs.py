"""Hub correction: what an item gets from any query at all, which its cosines are corrected by.

Nearest-neighbour normalisation (Chowdhury et al., EMNLP 2024): ``s'(q, x) = s(q, x) - share * mean of the n largest s(q', x)``
over reference queries q' of the query's modality. The second term does not depend on the query, so it is one extra coordinate
of the item, and a query takes it in by a -1 beside its own row.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cmcr.arrays import Array, IndexedRows, StoredRows, as_read, unit_rows

SHARE = 0.75
"""Of the mean that is taken off; the paper's choice for reference queries of another kind than the data's."""

NEIGHBOURS = 128
"""Reference queries whose cosines are averaged: those nearest to the item."""

MOST_REFERENCES = 4096
"""Reference queries of a modality in a space: about as in docs/search.md; nine seconds for 100,000 rows of 512."""

_ROWS = 1024  # compared with all references together: 16 MiB of cosines


def draw_references(memory: IndexedRows) -> NDArray[np.float32]:
    """Draw reference queries from a memory: all rows if they are few, else evenly spaced.

    Rows beyond a power of two are left out, so that the same are drawn while a memory grows to the next one.

    Returns:
        `(R, D)` rows, R at most `MOST_REFERENCES`.
    """
    count = min(len(memory), MOST_REFERENCES)
    span = count if count == len(memory) else 2 ** (len(memory).bit_length() - 1)
    return memory[np.arange(count) * span // max(count, 1)]


def hub_coordinates(
    rows: StoredRows, references: Array, *, neighbours: int = NEIGHBOURS, share: float = SHARE
) -> NDArray[np.float32]:
    """Compute the extra coordinate of every item, for queries of one modality.

    Args:
        rows: `(N, D)` the items, on disk; read in blocks.
        references: `(R, D)` reference queries, in the block of the items. Never those of a test.
        neighbours: how many of the nearest references are averaged; all, if there are fewer.
        share: of their mean that is taken off.

    Returns:
        `(N,)` float32, to be subtracted from the cosines.

    Raises:
        EmbeddingsError: references that cannot be used.
    """
    given = unit_rows(references, "reference queries").float()
    nearest = min(neighbours, len(given))
    found = []
    for block in rows.blocks(_ROWS):
        cosines = as_read(rows, block) @ given.T
        found.append(share * torch.topk(cosines, nearest, dim=1, sorted=False).values.mean(dim=1))
    return torch.cat(found).numpy() if found else np.zeros(0, dtype=np.float32)

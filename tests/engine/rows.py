"""Rows to compute with: random, in clusters, or on disk as far as the code can see."""

import numpy as np
import torch
from torch.nn.functional import normalize


def random_rows(rows: int, width: int, seed: int) -> torch.Tensor:
    """Unit rows of any direction, float64."""
    drawn = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(drawn, dim=1)


def clustered(rows: int, width: int, seed: int) -> torch.Tensor:
    """Unit rows around 16 centres, the same for every seed, as embeddings lie around their classes; float64."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(16, (rows,), generator=generator)
    spread = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    return normalize(16**0.5 * random_rows(16, width, 1)[chosen] + spread / width**0.5, dim=1)


class Disk:
    """Rows that can be read in blocks and by position only, as those of `cmcr.Memory`."""

    def __init__(self, rows):
        self._rows = np.asarray(rows, dtype=np.float32)
        self.shape = self._rows.shape
        self.most_rows_at_once = 0

    def __len__(self):
        return len(self._rows)

    def blocks(self, rows=4096):
        for start in range(0, len(self), rows):
            yield self[np.arange(start, min(start + rows, len(self)))]

    def __getitem__(self, rows):
        self.most_rows_at_once = max(self.most_rows_at_once, len(rows))
        return self._rows[rows]

    def digest(self):
        return "0" * 64

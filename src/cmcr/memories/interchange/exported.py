"""The rows of a memory as others read them: numpy arrays, some at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cmcr.memories.memory import Memory
from cmcr.memories.memory_rows import MemoryRows

_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True)
class ExportedBlock:
    """Rows `(n, D)` with their ids and sources."""

    rows: NDArray[Any]
    ids: Sequence[str]
    sources: Sequence[str]


class Exported:
    """A memory's rows, without what is in quarantine. bfloat16, which numpy lacks, becomes float32; nothing is rounded.

    Attributes:
        count: how many rows.
        width: width D.
        dtype: of the rows.
        modality: what was embedded.
    """

    def __init__(self, memory: Memory) -> None:
        self.count, self.width = memory.shape
        self.modality = memory.modality
        self.dtype: np.dtype[Any] = np.dtype("<f2" if memory.dtype == "float16" else "<f4")
        self._memory = memory

    def blocks(self, size: int = _ROWS_AT_ONCE) -> Iterator[ExportedBlock]:
        """Give all rows in order, at most `size` at a time."""
        for block in MemoryRows(self._memory).blocks(0, size):
            tensor = block.rows.float() if block.rows.dtype == torch.bfloat16 else block.rows
            rows = tensor.numpy()
            places = [place for place in range(len(block.ids)) if place not in block.missing]
            for start in range(0, len(rows), size):
                part = places[start : start + size]
                yield ExportedBlock(
                    rows[start : start + size],
                    [block.ids[place] for place in part],
                    [block.sources[place] for place in part],
                )

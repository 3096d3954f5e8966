"""A semantic consistency from its inputs to its rows: checked, in pieces, gone on with where it was stopped."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from cmcr.connection.peers import Peers
from cmcr.connection.products import Precision, check_precision, fast_float32
from cmcr.connection.read_ahead import read_ahead
from cmcr.connection.resumable_rows import ResumableRows
from cmcr.connection.softmax_mean import SoftmaxSums, Tiling, tiling_for
from cmcr.embeddings import Array, StoredRows, check_finite, is_number, rows_of, working_dtype
from cmcr.errors import ConfigError, DimensionError, NonFiniteError

_HASHED_ROWS = 4096  # together


@dataclass(frozen=True)
class SoftmaxMean:
    """A semantic consistency that can be computed: its checked inputs and the pieces it is computed in.

    Attributes:
        queries: `(Q, D)`.
        memory: `(N, D)`, of several processes only this one's part.
        temperature: of the softmax.
        normalize: whether results become unit rows.
        tiling: the pieces.
    """

    queries: Tensor
    memory: Tensor | StoredRows
    temperature: float
    normalize: bool
    tiling: Tiling

    @classmethod
    def of(
        cls, queries: Array, memory: Array | StoredRows, temperature: float, normalize: bool, precision: Precision
    ) -> Self:
        """Check a request; see `cmcr.semantic_consistency` for the arguments and errors."""
        if not (is_number(temperature) and temperature > 0):
            raise ConfigError(f"temperature: expected a finite number above 0, got {temperature!r}.")
        check_precision(precision)
        asked = rows_of(queries, "queries").detach()
        stored = memory if isinstance(memory, StoredRows) else rows_of(memory, "memory").detach()
        if asked.shape[1] != stored.shape[1]:
            raise DimensionError(
                f"queries are {asked.shape[1]} wide and the memory {stored.shape[1]}: both must be embeddings of one space."
            )
        check_finite(asked, "queries")
        if isinstance(stored, Tensor):  # rows on disk were checked when they were written
            check_finite(stored, "memory")
        sums = working_dtype(asked, stored) if isinstance(stored, Tensor) else working_dtype(asked)
        products = torch.bfloat16 if precision == "bfloat16" else sums
        tiling = tiling_for(asked.shape[1], products, sums, asked.device)
        return cls(asked, stored, float(temperature), normalize, tiling)

    def fill(
        self,
        result: Tensor,
        done: int,
        peers: Peers,
        progress: Callable[[float], None] | None,
        finished: Callable[[int], None] | None = None,
    ) -> None:
        """Compute the rows from `done` on; `finished` is told after each piece how many there are."""
        # The bound keeps a tiny temperature from overflowing.
        scale = min(math.log2(math.e) / self.temperature, torch.finfo(self.tiling.sums).max ** 0.5)
        count = len(self.queries)
        with torch.no_grad(), fast_float32():
            for start in range(done, count, self.tiling.queries):
                part = slice(start, min(start + self.tiling.queries, count))
                sums = SoftmaxSums(self.queries[part], scale, self.tiling)
                seen = 0
                for block in self._blocks():
                    sums.add(block.to(self.queries.device))
                    seen += len(block)
                    if progress is not None:
                        progress((start + (part.stop - start) * seen / len(self.memory)) / count)
                means = sums.means(peers)
                if not torch.isfinite(means).all():
                    raise NonFiniteError("the products of queries and memory overflow: scale the rows to unit length.")
                result[part] = torch.nn.functional.normalize(means, dim=1) if self.normalize else means
                if finished is not None:
                    finished(part.stop)

    def under_way(self, folder: Path, peers: Peers) -> ResumableRows:
        """Open the checkpoint; every process has one of its own, and all go on from where the last one was."""
        made_from = {
            "queries": _digest([self.queries]),
            "memory": _digest(self._blocks()),
            "temperature": self.temperature,
            "normalize": self.normalize,
            "tiling": [self.tiling.queries, self.tiling.side, str(self.tiling.products), str(self.tiling.sums)],
            "processes": peers.size,
            "torch": torch.__version__,
        }
        own = folder if peers.size == 1 else folder / f"process-{peers.rank}"
        under_way = ResumableRows(own, (len(self.queries), self.queries.shape[1]), self.tiling.sums, made_from)
        behind = peers.max_(torch.tensor(-under_way.done, device=self.queries.device))
        under_way.go_back_to(-int(behind))
        return under_way

    def _blocks(self) -> Iterator[Tensor]:
        side = self.tiling.side
        if isinstance(self.memory, Tensor):
            return (self.memory[start : start + side] for start in range(0, len(self.memory), side))
        return read_ahead(torch.from_numpy(block) for block in self.memory.blocks(side))


def _digest(blocks: Iterable[Tensor]) -> str:
    """Hash rows, whatever their blocks."""
    found = hashlib.sha256()
    for block in blocks:
        for rows in block.split(_HASHED_ROWS):
            found.update(rows.cpu().contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()

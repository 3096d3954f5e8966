"""A semantic consistency from its inputs to its rows: checked, in pieces, gone on with where it was stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from cmcr._version import __version__
from cmcr.arrays import Array, StoredRows, check_finite, is_number, rows_of, working_dtype
from cmcr.connection.agreement import failing_together
from cmcr.connection.checkpoint import Checkpoint, digest_of
from cmcr.connection.modes import float32_on, plain_modes
from cmcr.connection.peers import Peers
from cmcr.connection.products import LOWEST_TEMPERATURE_IN_BFLOAT16, Precision, check_precision, fast_float32
from cmcr.connection.read_ahead import read_ahead
from cmcr.connection.softmax_mean import Tiling, over_processes, softmax_mean, tiling_for
from cmcr.connection.stored import check_stored
from cmcr.errors import ConfigError, DimensionError, DtypeError, NonFiniteError, TooFewRowsError


@dataclass(frozen=True)
class SoftmaxMean:
    """A semantic consistency that can be computed: its checked inputs and the pieces it is computed in.

    Attributes:
        queries: `(Q, D)`.
        memory: `(N, D)`, of several processes only this one's part.
        device: that computes; queries and memory may be elsewhere.
        temperature: of the softmax.
        normalize: whether results become unit rows.
        tiling: the pieces.
    """

    queries: Tensor
    memory: Tensor | StoredRows
    device: torch.device
    temperature: float
    normalize: bool
    tiling: Tiling

    @classmethod
    def of(
        cls,
        queries: Array,
        memory: Array | StoredRows,
        temperature: float = 0.01,
        *,
        normalize: bool = False,
        precision: Precision = "float32",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Check a request; see `cmcr.semantic_consistency` for arguments and errors.

        The values of the memory, of which other processes have other parts, are checked once those are known. Without a
        device it is the queries' one; without a dtype sums are in float64 where an input is, else in float32.
        """
        if not (is_number(temperature) and temperature > 0):
            raise ConfigError(f"temperature: expected a finite number above 0, got {temperature!r}.")
        check_precision(precision)
        if precision == "bfloat16" and temperature < LOWEST_TEMPERATURE_IN_BFLOAT16:
            raise ConfigError(
                f"temperature: expected {LOWEST_TEMPERATURE_IN_BFLOAT16} or more in bfloat16, whose rounding would decide "
                f'below it, got {temperature!r}. precision="float32" takes any.'
            )
        asked = rows_of(queries, "queries").detach()
        stored = memory if isinstance(memory, StoredRows) else rows_of(memory, "memory", at_least=0).detach()
        if asked.shape[1] != stored.shape[1]:
            raise DimensionError(
                f"queries are {asked.shape[1]} wide and the memory {stored.shape[1]}: both must be embeddings of one space."
            )
        check_finite(asked, "queries")
        sums = dtype or (working_dtype(asked, stored) if isinstance(stored, Tensor) else working_dtype(asked))
        products = torch.bfloat16 if precision == "bfloat16" else sums
        where = device or asked.device
        if where.type == "mps" and sums == torch.float64:
            raise DtypeError(
                "queries and memory: expected at most float32 on an Apple GPU, got float64. Convert them first."
            )
        tiling = tiling_for(asked.shape[1], products, sums, where, len(asked))
        return cls(asked, stored, where, float(temperature), normalize, tiling)

    def fill(
        self,
        result: Tensor,
        peers: Peers,
        progress: Callable[[float], None] | None = None,
        checkpoint: Checkpoint | None = None,
        name: str = "rows",
    ) -> None:
        """Compute all rows.

        Args:
            result: `(Q, D)`, anywhere, where they shall stand.
            peers: the processes that share the memory.
            progress: called with the share done, in (0, 1].
            checkpoint: where finished parts are kept, and looked for, under names that begin with `name`.
            name: see `checkpoint`.

        Raises:
            TooFewRowsError, NonFiniteError: of the memory; see `cmcr.semantic_consistency`.
            IntegrityError, ReadError: this process's part of a memory on disk cannot be read.
            FormatError, IntegrityError, WriteError: what is kept is damaged, or cannot be kept.
            WorkerError: another process has failed, so that this one would wait for it in vain.
        """
        self._check_memory(peers)
        count = len(self.queries)
        for number, start in enumerate(range(0, count, self.tiling.queries)):
            part = slice(start, min(start + self.tiling.queries, count))
            kept_as = f"{name}-consistent-{number:05d}"
            rows = self._kept(checkpoint, kept_as, part, peers) if checkpoint else None
            if rows is None:
                rows = self._means(part, peers, progress)
                if checkpoint:
                    with failing_together(peers, self.device):
                        checkpoint.keep(kept_as, rows)
            elif progress is not None:
                progress(part.stop / count)
            result[part] = rows

    def identity(self, peers: Peers) -> dict[str, Any]:
        """Tell what decides about the rows, as JSON can hold it: the same in all processes. Raises as `fill`."""
        self._check_memory(peers)
        with failing_together(peers, self.device):
            own = torch.tensor([list(bytes.fromhex(digest_of(self.memory)))], device=self.device)
        memories, _ = peers.all_rows(own)
        return {
            "queries": digest_of(self.queries),
            "memory": bytes(memories.flatten().tolist()).hex(),
            "temperature": self.temperature,
            "normalize": self.normalize,
            "products": str(self.tiling.products),
            "queries at once": self.tiling.queries,
            "device": self.device.type,
            **float32_on(self.device),
            "version of cmcr": __version__,
            "version of torch": torch.__version__,
        }

    def _check_memory(self, peers: Peers) -> None:
        """Check this process's part, which may be empty if not all are."""
        rows = int(peers.sum_(torch.tensor([len(self.memory)], device=self.device)).item())
        with failing_together(peers, self.device):
            if rows == 0:
                raise TooFewRowsError("memory: expected at least 1 row(s), got 0.")
            if isinstance(self.memory, Tensor):  # rows on disk were checked when they were written
                check_finite(self.memory, "memory")

    def _means(self, part: slice, peers: Peers, progress: Callable[[float], None] | None) -> Tensor:
        """Compute the rows of a part of the queries, while the whole memory passes by."""
        # The bound keeps a tiny temperature from overflowing.
        scale = min(math.log2(math.e) / self.temperature, torch.finfo(self.tiling.sums).max ** 0.5)
        with plain_modes(self.device), torch.no_grad(), fast_float32():
            with failing_together(peers, self.device):  # once, before they meet: not at every block
                sums = softmax_mean(self._brought(self.queries[part]), scale, self.tiling)
                seen = 0
                for block in self._blocks():
                    sums.add(self._brought(block))
                    seen += len(block)
                    if progress is not None:
                        progress((part.start + (part.stop - part.start) * seen / len(self.memory)) / len(self.queries))
                own = sums.finished()
                if len(self.memory):  # else there is no mean
                    self._check_means(own[0])
            means = over_processes(*own, peers)
            for rows in means.split(self.tiling.side):
                if self.normalize:
                    rows.copy_(torch.nn.functional.normalize(rows, dim=1))
            return means

    def _check_means(self, means: Tensor) -> None:
        """Say what is wrong where a mean is no number."""
        if all(torch.isfinite(rows).all() for rows in means.split(self.tiling.side)):
            return
        if not isinstance(self.memory, Tensor):
            check_stored(self.memory)
        raise NonFiniteError("the products of queries and memory overflow: scale the rows to unit length.")

    def _brought(self, rows: Tensor) -> Tensor:
        """Bring some rows to the device; those of a wider dtype in that of the sums, for not every device knows float64."""
        return rows.to(self.device, self.tiling.sums if rows.itemsize > self.tiling.sums.itemsize else rows.dtype)

    def _kept(self, checkpoint: Checkpoint, name: str, part: slice, peers: Peers) -> Tensor | None:
        """Read kept rows; None where a process has not found them: then all compute them, for they do it together."""
        with failing_together(peers, self.device):
            rows = checkpoint.kept(name, self.queries[part].shape)
        missing = peers.max_(torch.tensor([int(rows is None)], device=self.device))
        return None if missing else rows

    def _blocks(self) -> Iterator[Tensor]:
        side = self.tiling.side
        if isinstance(self.memory, Tensor):
            return (self.memory[start : start + side] for start in range(0, len(self.memory), side))
        return read_ahead(torch.from_numpy(block) for block in self.memory.blocks(side))

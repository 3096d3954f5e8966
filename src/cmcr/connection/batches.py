"""The batches of a training: which items, and their noise, as functions of the seed and the step alone.

Nothing is carried from step to step, so a training can be taken up at any step, and each of several processes can draw
just the rows that it holds. All buffers are made once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from cmcr.connection.enhancement import noise_deviation
from cmcr.connection.peers import Peers
from cmcr.connection.settings import Settings
from cmcr.connection.sides import Side

NOISE_ROWS = 1024
"""Rows of a batch whose noise comes from one seeded generator."""

_ORDER, _NOISE = 0, 1  # what is drawn: each has seeds of its own


class Batches:
    """The completed embeddings of every step, as far as this process holds them.

    Every epoch visits the items in a new order; a last batch that is not full is left out. Of each batch a process holds
    consecutive rows.

    Use as a context, which ends the threads that draw.

    Args:
        sides: left and right: rows on the device, or on the CPU where they do not fit there.
        settings: of batches and noise.
        seed: of order and noise.
        device: where the completed rows shall be.
        peers: the processes that share each batch.
    """

    def __init__(
        self, sides: tuple[Side, Side], settings: Settings, seed: int, device: torch.device, peers: Peers
    ) -> None:
        self._sets = [rows for side in sides for rows in (side.overlap, side.consistent)]
        self._seed = seed
        count = len(self._sets[0])
        self._batch = settings.rows_per_step(count)
        self.per_epoch = count // self._batch
        self._own = peers.part_of(self._batch)
        own = self._own.stop - self._own.start
        widths = [rows.shape[1] for rows in self._sets]
        self._deviations = [noise_deviation(settings.noise_variance, width, settings.rescale_noise) for width in widths]
        self._completed = [torch.empty(2 * own, widths[place], dtype=torch.float32, device=device) for place in (0, 2)]
        self._rooms = [half for both in self._completed for half in both.split(own)]
        self._gatherers = [_gatherer(rows, room) for rows, room in zip(self._sets, self._rooms, strict=True)]
        self._noise = Noise(self._batch, self._own, widths, device) if settings.noise_variance else None
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._noise is not None:
            self._noise.close()

    def completed(self, step: int) -> tuple[Tensor, Tensor]:
        """Complete this process's rows of a batch with fresh noise.

        Args:
            step: counted from 0.

        Returns:
            of the left space and of the right one, `(2 B, D)` unit rows: the overlap's, then their counterparts. They are
            overwritten by the next call.
        """
        chosen = self._chosen(step)
        for place, (gather, room) in enumerate(zip(self._gatherers, self._rooms, strict=True)):
            gather(chosen)
            noise = None if self._noise is None else self._noise.draw(self._seed, step, place, room.shape[1])
            complete_(room, noise, self._deviations[place])
        return self._completed[0], self._completed[1]

    def _chosen(self, step: int) -> Tensor:
        """Tell which items this process holds of a batch."""
        epoch, batch = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, item_order(len(self._sets[0]), self._seed, epoch).to(self._sets[0].device)
        start = batch * self._batch
        return self._order[start + self._own.start : start + self._own.stop]


def complete_(rows: Tensor, noise: Tensor | None, deviation: float) -> None:
    """Complete rows `(B, D)` in place, ``normalize(x + deviation * noise)``: `semantic_completion` with given noise."""
    if noise is not None:
        rows.add_(noise, alpha=deviation)
    rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min_(1e-12))


def item_order(count: int, seed: int, epoch: int) -> Tensor:
    """Shuffle the numbers of all items for an epoch: `(count,)`, the same on every device."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(_mixed(seed, _ORDER, epoch)))


class Noise:
    """Standard normal rows of a batch, each a function of the seed, the step, the set and its place in the batch.

    Args:
        batch: rows of the whole batch.
        own: which of them are wanted here.
        widths: of the sets.
        device: where to draw; another kind of device draws other numbers.
    """

    def __init__(self, batch: int, own: slice, widths: list[int], device: torch.device) -> None:
        self._first = own.start // NOISE_ROWS
        blocks = -(-own.stop // NOISE_ROWS) - self._first
        start = self._first * NOISE_ROWS
        self._rows = min(blocks * NOISE_ROWS, batch - start)
        self._own = slice(own.start - start, own.stop - start)
        self._room = torch.empty(self._rows * max(widths), dtype=torch.float32, device=device)
        self._generators = [torch.Generator(device) for _ in range(blocks)]
        threads = min(blocks, torch.get_num_threads()) if device.type == "cpu" else 1
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None  # one generator keeps one core busy

    def draw(self, seed: int, step: int, place: int, width: int) -> Tensor:
        """Draw the noise of one of the four sets: `(n, width)`, overwritten by the next call."""
        rows = self._room[: self._rows * width].view(-1, width)
        blocks = list(enumerate(rows.split(NOISE_ROWS)))

        def fill(numbered: tuple[int, Tensor]) -> None:
            number, block = numbered
            generator = self._generators[number]
            generator.manual_seed(_mixed(seed, _NOISE, step, place, self._first + number))
            block.normal_(generator=generator)

        for _ in map(fill, blocks) if self._pool is None else self._pool.map(fill, blocks):
            pass
        return rows[self._own]

    def close(self) -> None:
        """End the threads that draw."""
        if self._pool is not None:
            self._pool.shutdown()


def _mixed(seed: int, *purpose: int) -> int:
    """Mix a seed and what is drawn with it into the seed of a generator."""
    # torch's generator on the CPU takes 32 bits of it: of a long training's 300,000 blocks a few draw what another one drew,
    # at another step.
    return int(np.random.SeedSequence(seed, spawn_key=purpose).generate_state(1, np.uint64)[0])


def _gatherer(rows: Tensor, room: Tensor) -> Callable[[Tensor], None]:
    """Make the function that gathers chosen rows of a set into its buffer."""
    if rows.device == room.device:
        return lambda chosen: _select(rows, chosen, room)
    if room.device.type != "cuda":
        staging = torch.empty_like(room, device="cpu")

        def through_ram(chosen: Tensor) -> None:
            _select(rows, chosen, staging)
            room.copy_(staging)

        return through_ram
    pinned = torch.empty_like(room, device="cpu", pin_memory=True)
    copied = torch.cuda.Event()

    def beside_the_gpu(chosen: Tensor) -> None:
        copied.synchronize()  # the copy before this one has left the buffer; the step after it may still be computing
        _select(rows, chosen, pinned)
        room.copy_(pinned, non_blocking=True)
        copied.record(torch.cuda.current_stream(room.device))

    return beside_the_gpu


def _select(rows: Tensor, chosen: Tensor, out: Tensor) -> None:
    torch.index_select(rows, 0, chosen, out=out)

"""The batches of a training: which rows, and the source of their noise, as functions of the seed and the step alone.

Nothing is carried from step to step, so a training can be resumed at any step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from cmcr.arrays import IndexedRows, all_rows, as_read
from cmcr.engine.device import available_ram_bytes

_SHARE = 0.7  # of the free memory that rows may take; the rest is for activations and the loss
_ORDER, _NOISE = 0, 1  # what is drawn: each has seeds of its own

Rows = Tensor | IndexedRows
"""Rows `(n, D)` in memory, or on disk where they can be read by position."""


class Batches:
    """The rows of every step, from several sets of the same items.

    Every epoch visits the items in a new order; a last batch that is not full is left out.

    Args:
        sets: rows `(n, D)`; row i is the same item in all.
        batch: rows of a step.
        seed: of order and noise.
        device: where the rows are needed. What does not fit stays in RAM or on disk, and the rows of each batch are copied.
    """

    def __init__(self, sets: Sequence[Rows], batch: int, seed: int, device: torch.device) -> None:
        self._sets = list(_placed(sets, device))
        self._batch, self._seed, self._device = batch, seed, device
        self._generator = torch.Generator(device)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)
        self.per_epoch = len(sets[0]) // batch

    def rows(self, step: int) -> tuple[Tensor, ...]:
        """Gather the rows of a step, counted from 0: of each set `(batch, D)` float32, on the device."""
        epoch, number = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(_mixed(self._seed, _ORDER, epoch))
            self._epoch, self._order = epoch, torch.randperm(len(self._sets[0]), generator=generator)
        chosen = self._order[number * self._batch : (number + 1) * self._batch]
        return tuple(self._gathered(rows, chosen) for rows in self._sets)

    def noise(self, step: int) -> torch.Generator:
        """Return the source of a step's noise, on the device; another kind of device draws other numbers."""
        return self._generator.manual_seed(_mixed(self._seed, _NOISE, step))

    def _gathered(self, rows: Rows, chosen: Tensor) -> Tensor:
        if isinstance(rows, Tensor):
            return rows[chosen.to(rows.device)].to(self._device)
        return as_read(rows, rows[chosen.numpy()]).to(self._device)


def _placed(sets: Sequence[Rows], device: torch.device) -> Iterator[Rows]:
    """Bring rows to the device as float32 if all of them fit, else into RAM, else leave those on disk where they are."""
    size = sum(4 * rows.shape[0] * rows.shape[1] for rows in sets)
    on_device = device.type == "cpu" or size <= _SHARE * _free_bytes(device)
    in_ram = size <= _SHARE * available_ram_bytes()
    for rows in sets:
        there = rows if isinstance(rows, Tensor) or not in_ram else all_rows(rows)
        yield there.to(device if on_device else "cpu", torch.float32) if isinstance(there, Tensor) else there


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        # What torch holds and has no use for now counts as used for the system, and is free for us.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + held)
    return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())


def _mixed(seed: int, *purpose: int) -> int:
    """Mix a seed and what is drawn with it into the seed of a generator."""
    return int(np.random.SeedSequence(seed, spawn_key=purpose).generate_state(1, np.uint64)[0])

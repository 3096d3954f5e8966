"""How fast: a few real items and small real operations are timed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cmcr.connection.enhancement import semantic_consistency
from cmcr.connection.settings import Settings
from cmcr.connection.training import Side, train
from cmcr.embeddings import choose_device
from cmcr.recipes.costs import consistency_operations, training_operations
from cmcr.spaces.protocol import Space
from cmcr.spaces.tower import encode_batches_of

SAMPLE_ITEMS = 16
"""Items of each memory that are decoded and embedded for real."""

_LEAST_SECONDS = 0.1  # that a small operation is repeated for
_QUERIES, _MEMORY, _BATCH, _STEPS = 256, 4096, 512, 3  # of the small operations


@dataclass(frozen=True)
class Sample:
    """What became of a few real items.

    Attributes:
        rate: items a second, decoding included; 0 where none could be embedded.
        width: width D of their rows.
        failures: why items could not be embedded.
    """

    rate: float
    width: int
    failures: tuple[str, ...]


def sample(space: Space, modality: str, contents: Sequence[Any], device: str | None) -> Sample:
    """Embed a few items twice, and time the second pass: the first one warms up."""
    for warm in (False, True):
        start = time.perf_counter()
        (encoded,) = encode_batches_of(space, [list(contents)], modality, device)
        seconds = time.perf_counter() - start
        if not warm and not len(encoded.rows):
            break
    rate = len(contents) / seconds if len(encoded.rows) else 0.0
    width = int(encoded.rows.shape[1]) if len(encoded.rows) else space.widths[modality]
    return Sample(rate, width, tuple(str(error) for error in encoded.failures.values()))


def consistency_rate(width: int, device: str) -> float:
    """Measure operations a second of semantic consistency, on random rows."""
    where = choose_device(device)
    drawn = torch.Generator().manual_seed(0)
    queries, memory = (
        torch.nn.functional.normalize(torch.randn(rows, width, generator=drawn), dim=1).to(where)
        for rows in (_QUERIES, _MEMORY)
    )
    seconds = _seconds(lambda: semantic_consistency(queries, memory, normalize=True).sum().item())
    return consistency_operations(_QUERIES, _MEMORY, width) / seconds


def training_rate(left: int, right: int, settings: Settings, device: str) -> float:
    """Measure operations a second of training, on random rows."""
    drawn = torch.Generator().manual_seed(0)
    few = dataclasses.replace(settings, epochs=_STEPS, batch_size=_BATCH)
    sides = [
        Side(*(torch.nn.functional.normalize(torch.randn(_BATCH, width, generator=drawn), dim=1) for _ in range(2)))
        for width in (left, right)
    ]
    where = choose_device(device)
    seconds = _seconds(lambda: train(sides[0], sides[1], few, device=where))
    return training_operations(_BATCH, left, right, few) / seconds


def _seconds(work: Callable[[], object]) -> float:
    """Time an operation: the fastest of several, after one that warms up."""
    work()
    found: list[float] = []
    while sum(found) < _LEAST_SECONDS:
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)

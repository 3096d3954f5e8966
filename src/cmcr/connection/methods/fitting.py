"""What every method is given and gives: the rows of two parents, how to run, and one map for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cmcr.arrays import normalized
from cmcr.connection.maps import Centring, Linear, Map
from cmcr.connection.settings import MethodSettings
from cmcr.engine.batches import Rows
from cmcr.engine.train_state import TrainState
from cmcr.progress import Progress

_BLOCK = 8192
_TEXTS, _ITEMS = 6000, 2000  # of the overlap and of a memory, that the gap is found from
SHRINKAGE = 0.1
"""Of covariances: the share of the mean eigenvalue that is added to all."""


@dataclass(frozen=True)
class Parent:
    """The rows of one of the two spaces.

    Attributes:
        overlap: `(n, D)` unit rows; row i is the same item in both parents.
        outer: `(m, D)` unit rows of the modality that the other space never saw.
    """

    overlap: Rows
    outer: Rows

    @property
    def width(self) -> int:
        """Width D."""
        return int(self.overlap.shape[1])


@dataclass(frozen=True)
class Run:
    """How a method is fitted.

    Attributes:
        seed: decides all that is drawn.
        device: where the heavy parts run.
        progress: called with (stage, share done).
        consistent: of the left and the right space, their semantically consistent rows if they are known already.
        resume_from: see `train`.
        after_step: see `train`.
        choice: what `auto` chose before, so that it does not choose anew.
    """

    seed: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress | None = None
    consistent: tuple[Rows | None, Rows | None] = (None, None)
    resume_from: Mapping[str, Tensor] | None = None
    after_step: Callable[[TrainState], None] | None = None
    choice: Mapping[str, Any] | None = None

    def part(self, stage: str, number: int = 0, parts: int = 1) -> Callable[[float], None] | None:
        """Report one of several equal parts of a stage as a share of the whole."""
        report = self.progress
        return None if report is None else lambda done: report(stage, (number + done) / parts)


@dataclass(frozen=True)
class Fitted:
    """What a method has found.

    Attributes:
        left: the map of the left space, on the CPU.
        right: the map of the right one, equally wide.
        history: the loss terms of every training step, if there was one.
        report: what was chosen and why, as JSON can hold it.
    """

    left: Map
    right: Map
    history: Mapping[str, list[float]] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)


class Method(NamedTuple):
    """A way to connect two spaces.

    Attributes:
        settings: the class of its settings.
        fit: finds the two maps.
        changes: what it changes in the defaults of the settings.
        into: finds one map, of the second parent, into the coordinates of the first, which stays as it is; None where the
            method has none.
    """

    settings: type[MethodSettings]
    fit: Callable[[Parent, Parent, Any, Run], Fitted]
    changes: Mapping[str, Any] = {}
    into: Callable[[Parent, Parent, Any, Run], Map] | None = None


def blocks_of(rows: Rows, size: int = _BLOCK) -> Iterator[Tensor]:
    """Give rows in their order, `(n, D)` float32 unit rows at a time, from RAM or disk."""
    if isinstance(rows, Tensor):
        yield from (part.cpu().float() for part in rows.split(size))
    else:
        yield from (normalized(torch.from_numpy(block)) for block in rows.blocks(size))


def some_rows(rows: Rows, positions: Tensor) -> Tensor:
    """Take rows by position: `(n, D)` float32 in RAM."""
    if isinstance(rows, Tensor):
        return rows[positions.to(rows.device)].cpu().float()
    return normalized(torch.from_numpy(rows[positions.numpy()]))


def drawn(count: int, at_most: int, seed: int) -> Tensor:
    """Draw positions of rows without replacement, in rising order: all of them where there are no more than `at_most`."""
    if count <= at_most:
        return torch.arange(count)
    return torch.from_numpy(np.sort(np.random.default_rng(seed).choice(count, at_most, replace=False)))


def mean_and_covariance(rows: Rows) -> tuple[Tensor, Tensor]:
    """Give the mean `(D,)` and the covariance `(D, D)` of rows, in float64."""
    total = torch.zeros(rows.shape[1], dtype=torch.float64)
    square = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for block in blocks_of(rows):
        total += block.sum(dim=0, dtype=torch.float64)
        square += (block.T @ block).double()
    mean = total / len(rows)
    return mean, square / len(rows) - torch.outer(mean, mean)


def second_moment(rows: Rows) -> Tensor:
    """Give ``X^T X / n`` `(D, D)` of rows, in float64."""
    mean, covariance = mean_and_covariance(rows)
    return covariance + torch.outer(mean, mean)


def shrunk(covariance: Tensor) -> Tensor:
    """Add `SHRINKAGE` times the mean eigenvalue to a covariance."""
    return covariance + SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)


def linear_map(weight: Tensor) -> Linear:
    """Make a map of its weight `(D, K)`."""
    found = Linear(*weight.shape)
    found.weight.copy_(weight)
    return found


def gap_of(parent: Parent, seed: int) -> Tensor:
    """Find how far the outer modality lies from the overlap, apart from what it shows: `(D,)`.

    The difference of two modalities' means is their gap and the difference of what they show. What a memory shows is what
    the overlap items that match it say, so the gap is what these leave unexplained of its mean, found as the closest points
    of two clouds are (Besl & McKay 1992): from ``g = 0``, six times

        p(m | x) = softmax_m(N(x - g) . t_m / 0.02),    g <- mean_x x - mean_x sum_m p(m | x) t_m.
    """
    texts = some_rows(parent.overlap, drawn(len(parent.overlap), _TEXTS, seed))
    items = some_rows(parent.outer, drawn(len(parent.outer), _ITEMS, seed))
    gap = torch.zeros_like(items[0])
    for _ in range(6):
        shares = torch.softmax(F.normalize(items - gap, dim=1) @ texts.T / 0.02, dim=1)
        gap = items.mean(dim=0) - shares.mean(dim=0) @ texts
    return gap


def centring_of(parent: Parent, gap: Tensor | None = None) -> Centring:
    """Fit the centring of a space: the means of its two modalities, and the linear discriminant between them.

    With a `gap`, what is subtracted is nothing of the overlap and the gap of the outer modality, instead of their means.
    Fisher's discriminant with the pooled covariance S, shrunk, and equal chances: ``w = S^-1 (m_0 - m_1)``,
    ``b = -w . (m_0 + m_1) / 2``.
    """
    (first, spread_first), (second, spread_second) = (mean_and_covariance(r) for r in (parent.overlap, parent.outer))
    weight = torch.linalg.solve(shrunk((spread_first + spread_second) / 2), first - second)
    found = Centring(parent.width)
    found.means.copy_(torch.stack([first, second] if gap is None else [torch.zeros_like(gap), gap]))
    found.weight.copy_(weight)
    found.bias.copy_(-weight @ (first + second) / 2)
    return found

"""What all parts share: a clock that waits for the device, ways that take turns, and the sizes of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Line = dict[str, Any]
"""One figure as it is printed."""

Result = Callable[[], Any]
"""One way of doing the same thing."""

TEMPERATURE = 0.01


@dataclass(frozen=True)
class Run:
    """How to measure.

    Attributes:
        device: where to compute.
        rounds: how often the ways take turns, at most.
        small: a few seconds in all, to see that everything works.
        whole: connect at full size.
        patience: seconds after which a way sits out further rounds.
    """

    device: torch.device
    rounds: int = 3
    small: bool = False
    whole: bool = False
    patience: float = 8.0

    @property
    def width(self) -> int:
        """Width of all embeddings."""
        return 64 if self.small else 512


def clock(work: Result, device: torch.device) -> tuple[float, Any]:
    """Time one call until the device is done, in seconds; give its result too."""
    wait_for(device)
    start = time.perf_counter()
    result = work()
    wait_for(device)
    return time.perf_counter() - start, result


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@dataclass
class Turns:
    """What a way took, and its last result."""

    seconds: list[float]
    result: Any = None


def in_turn(ways: Mapping[str, Result], run: Run) -> dict[str, Turns]:
    """Time ways in turn, A B C A B C, so that a disturbance hits all of them.

    A way that has taken more than `run.patience` seconds sits out further rounds.
    """
    found = {name: Turns([]) for name in ways}
    for _ in range(run.rounds):
        for name, way in ways.items():
            turns = found[name]
            if sum(turns.seconds) <= run.patience:
                seconds, turns.result = clock(way, run.device)
                turns.seconds.append(seconds)
    return found


def timed_line(turns: Turns, naive: Turns, operations: Mapping[str, float]) -> Line:
    """Sum up a way beside the naive one.

    Args:
        turns: of the way.
        naive: of the naive way.
        operations: that the way needs, by the roofline that each belongs to; shares of it are filled in at the end.
    """
    best = min(turns.seconds)
    return {
        "seconds": figure(best),
        "times_naive": figure(min(naive.seconds) / best),
        "gflops": figure(sum(operations.values()) / best / 1e9),
        "rounds": len(turns.seconds),
        "operations": {name: float(count) for name, count in operations.items()},
    }


def random_rows(count: int, width: int, seed: int, device: torch.device) -> Tensor:
    """Draw unit rows `(count, width)` without any structure."""
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return F.normalize(rows, dim=1).to(device)


def clustered_rows(count: int, width: int, seed: int, device: torch.device) -> Tensor:
    """Draw unit rows around 64 fixed centres, so that many rows share the weight of each query, as real ones do."""
    drawn = torch.Generator().manual_seed(seed)
    centres = torch.randn(64, width, generator=torch.Generator().manual_seed(1))
    chosen = torch.randint(64, (count,), generator=drawn)
    rows = torch.empty(count, width)
    for start in range(0, count, 65_536):
        part = chosen[start : start + 65_536]
        noise = torch.randn(len(part), width, generator=drawn)
        torch.nn.functional.normalize(centres[part] + noise, dim=1, out=rows[start : start + len(part)])
    return rows.to(device)


def figure(value: float) -> float:
    """Round to four digits."""
    return float(f"{value:.4g}")


def numbered(lines: Iterator[Line], **common: Any) -> Iterator[Line]:
    """Put the same entries in front of each line."""
    return ({**common, **line} for line in lines)

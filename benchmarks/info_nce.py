"""Measure the contrastive loss, forward and backward, beside the plain way with its B x B table.

    python benchmarks/info_nce.py                     speed and memory, batches of 1024 to 10240 rows of width 512
    python benchmarks/info_nce.py --batches 2048      only these
    python benchmarks/info_nce.py --errors            errors of the gradients to those of float64 instead of speed

One JSON line a figure. The ways take turns within each round, with the products of a tile beside them: their best rate
is the roofline. The tiled way needs four products of `2 B B K` operations, one of which makes the logits again.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cmcr.connection.info_nce import info_nce
from cmcr.connection.products import fast_float32

WIDTH = 512
TEMPERATURE = 0.01
TILE = 2048

Loss = Callable[[Tensor, Tensor, float], Tensor]


def naive(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    """Compute the loss the plain way, from the whole table of logits."""
    logits = (left / temperature) @ right.T
    target = torch.arange(len(left), device=left.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


WAYS: dict[str, Loss] = {
    "naive": naive,
    "float32": info_nce,
    "bfloat16": partial(info_nce, precision="bfloat16"),
}


def random_start(batch: int, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Draw pairs that have nothing in common, as before training."""
    left, right = torch.randn(2, batch, width, generator=torch.Generator().manual_seed(0))
    return F.normalize(left, dim=1), F.normalize(right, dim=1)


def narrow_cone(batch: int, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Draw pairs that all lie within one narrow cone (cosines of about 0.8), as frozen encoders give them."""
    left, right = random_start(batch, width)
    middle = 2 * F.normalize(torch.ones(width), dim=0)
    return F.normalize(left + middle, dim=1), F.normalize(right + middle, dim=1)


def low_loss(batch: int, width: int = WIDTH) -> tuple[Tensor, Tensor]:
    """Draw pairs that are easy to tell apart, as late in training: a loss of about a thousandth."""
    left, noise = random_start(batch, width)
    return left, F.normalize(left + 1.4 * noise, dim=1)


def forward_backward(way: Loss, left: Tensor, right: Tensor, temperature: float = TEMPERATURE) -> tuple[Tensor, Tensor]:
    """Compute the loss and the gradients of both sides.

    Returns:
        the loss, and the gradients `(2, B, K)`.
    """
    left, right = left.detach().requires_grad_(), right.detach().requires_grad_()
    loss = way(left, right, temperature)
    loss.backward()  # type: ignore[no-untyped-call]
    assert left.grad is not None
    assert right.grad is not None
    return loss.detach(), torch.stack([left.grad, right.grad])


def clock(work: Callable[[], Any]) -> float:
    """Time one call, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def roofline(dtype: torch.dtype) -> Callable[[], float]:
    """Prepare one of the products of a tile.

    Returns:
        a function that computes it four times and gives the best rate, in 10^9 operations a second.
    """
    first, second = torch.randn(TILE, WIDTH).to(dtype), torch.randn(TILE, WIDTH).to(dtype)
    tile = torch.empty(TILE, TILE, dtype=dtype)

    def rate() -> float:
        with fast_float32():
            seconds = min(clock(lambda: torch.mm(first, second.T, out=tile)) for _ in range(4))
        return 2 * TILE * TILE * WIDTH / seconds / 1e9

    return rate


def speed(batch: int, rounds: int, data: Callable[[int], tuple[Tensor, Tensor]]) -> Iterator[dict[str, Any]]:
    """Time all ways in turn, after one round to warm up, with the roofline before each."""
    left, right = data(batch)
    rates = {"float32": roofline(torch.float32), "bfloat16": roofline(torch.bfloat16)}
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    found: dict[str, list[float]] = {name: [] for name in rates}
    for turn in range(rounds + 1):
        for name, way in WAYS.items():
            for kind, rate in rates.items():
                found[kind].append(rate())
            taken = clock(partial(forward_backward, way, left, right))
            if turn:
                times[name].append(taken)
    fine, coarse = median(found["float32"]), median(found["bfloat16"])
    product = 2 * batch * batch * WIDTH / 1e9
    best = {"naive": 3 * product / fine, "float32": 4 * product / fine, "bfloat16": product * (2 / fine + 2 / coarse)}
    for name, taken in times.items():
        yield {
            "figure": f"info_nce {name}",
            "data": data.__name__,
            "batch": batch,
            "seconds": round(median(taken), 4),
            "naive_over_this": round(median(a / b for a, b in zip(times["naive"], taken, strict=True)), 3),
            "share_of_roofline": round(best[name] / median(taken), 3),
            "roofline_gflops": round(fine),
            "roofline_bfloat16_gflops": round(coarse),
        }


def peak(batch: int) -> Iterator[dict[str, Any]]:
    """Measure what each way adds to the peak memory of a process of its own, beyond the inputs."""
    for name in WAYS:
        call = [sys.executable, __file__, "--peak-of", name, "--batches", str(batch)]
        done = subprocess.run(call, check=True, capture_output=True, text=True)
        yield {"figure": f"info_nce {name}", "batch": batch, "peak_MiB": round(float(done.stdout), 1)}


def peak_here(name: str, batch: int) -> float:
    """Tell by how much one way raises this process's peak memory, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    left, right = random_start(batch)
    forward_backward(WAYS[name], left[:64], right[:64])  # libraries are loaded, and their buffers stand
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    forward_backward(WAYS[name], left, right)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit


def errors(batch: int) -> Iterator[dict[str, Any]]:
    """Compare losses and gradients with those of the plain way in float64."""
    for data in (random_start, narrow_cone, low_loss):
        left, right = data(batch)
        loss, gradient = forward_backward(naive, left.double(), right.double())
        for name, way in WAYS.items():
            other, found = forward_backward(way, left, right)
            yield {
                "figure": f"info_nce {name}",
                "data": data.__name__,
                "batch": batch,
                "loss": float(f"{loss.item():.4g}"),
                "loss_error": float(f"{abs(other.item() - loss.item()) / loss.item():.2g}"),
                "gradient_error": float(f"{((found - gradient).norm() / gradient.norm()).item():.2g}"),
            }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1024, 2048, 4096, 10240])
    parser.add_argument("--rounds", type=int, default=0, help="default: more for small batches")
    parser.add_argument("--data", choices=[d.__name__ for d in (random_start, narrow_cone, low_loss)])
    parser.add_argument("--errors", action="store_true")
    parser.add_argument("--no-peak", action="store_true")
    parser.add_argument("--peak-of", choices=list(WAYS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_of:
        print(peak_here(args.peak_of, args.batches[0]))
        return
    for batch in args.batches:
        if args.errors:
            figures = errors(batch)
        else:
            rounds = args.rounds or max(3, math.ceil(10_000 / batch))
            figures = speed(batch, rounds, globals()[args.data or "random_start"])
        for figure in figures:
            print(json.dumps(figure), flush=True)
        if not (args.errors or args.no_peak):
            for figure in peak(batch):
                print(json.dumps(figure), flush=True)


if __name__ == "__main__":
    main()

"""The contrastive loss, forward and backward: ours against the plain way with its B x B table of logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from cmcr.connection.info_nce import info_nce, is_one_tile
from side_by_side.measuring import TEMPERATURE, Line, Run, clock, figure, in_turn, random_rows, timed_line
from side_by_side.peaks import peak_of, raised_by
from side_by_side.rooflines import BFLOAT16, DEFAULT, FLOAT32

Loss = Callable[[Tensor, Tensor, float], Tensor]


def naive(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    """Compute the loss the plain way, from the whole table of logits."""
    logits = left @ right.T / temperature
    target = torch.arange(len(left), device=left.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


WAYS: dict[str, tuple[Loss, dict[str, int]]] = {
    "naive": (naive, {DEFAULT: 3}),
    "ours_float32": (info_nce, {FLOAT32: 3}),
    "ours_bfloat16": (partial(info_nce, precision="bfloat16"), {FLOAT32: 1, BFLOAT16: 2}),
}
"""Each way, and its products of `2 B B K` operations by roofline."""


def operations(way: str, batch: int, width: int, device: torch.device) -> dict[str, float]:
    """Count the operations of a loss and its gradient by roofline: ours may compute the logits again on the way back."""
    products = dict(WAYS[way][1])
    if way != "naive" and not is_one_tile(batch, device):
        products[FLOAT32] += 1
    return {roof: 2.0 * batch**2 * width * count for roof, count in products.items()}


def random_start(batch: int, width: int) -> tuple[Tensor, Tensor]:
    """Draw pairs that have nothing in common, as before training."""
    device = torch.device("cpu")
    return random_rows(batch, width, 0, device), random_rows(batch, width, 1, device)


def narrow_cone(batch: int, width: int) -> tuple[Tensor, Tensor]:
    """Draw pairs that all lie within one narrow cone (cosines of about 0.8), as frozen encoders give them."""
    left, right = random_start(batch, width)
    middle = 2 * F.normalize(torch.ones(width), dim=0)
    return F.normalize(left + middle, dim=1), F.normalize(right + middle, dim=1)


def low_loss(batch: int, width: int) -> tuple[Tensor, Tensor]:
    """Draw pairs that are easy to tell apart, as late in training: a loss of about a thousandth."""
    left, noise = random_start(batch, width)
    return left, F.normalize(left + 3.3 * noise, dim=1)


def neighbours(batch: int, width: int) -> tuple[Tensor, Tensor]:
    """Draw close pairs in groups of four rows that resemble each other: a loss of about a thousandth as well."""
    centres, spread = random_start(batch, width)
    left = F.normalize(centres[: -(-batch // 4)].repeat(4, 1)[:batch] + 0.3 * spread, dim=1)
    return left, F.normalize(left + 0.05 * random_rows(batch, width, 2, torch.device("cpu")), dim=1)


DATA: dict[str, Callable[[int, int], tuple[Tensor, Tensor]]] = {
    "random_start": random_start,
    "narrow_cone": narrow_cone,
    "low_loss": low_loss,
    "neighbours": neighbours,
}


def forward_backward(way: Loss, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the loss and the gradients of both sides.

    Returns:
        the loss, and the gradients `(2, B, K)`.
    """
    left, right = left.detach().requires_grad_(), right.detach().requires_grad_()
    loss = way(left, right, TEMPERATURE)
    loss.backward()
    assert left.grad is not None
    assert right.grad is not None
    return loss.detach(), torch.stack([left.grad, right.grad])


def measure(run: Run) -> Iterator[Line]:
    """Measure speed and peak memory over batches, then the errors."""
    batches = [64, 128] if run.small else [1024, 2048, 4096, 10_240]
    left, right = (side.to(run.device) for side in random_start(256, run.width))
    for way, _ in WAYS.values():
        clock(partial(forward_backward, way, left, right), run.device)
    for batch in batches:
        yield from _speed(run, batch)
    yield from _errors(run, 128 if run.small else 2048)
    if not run.small:
        yield from _peaks(run, batches[1::2])


def _speed(run: Run, batch: int) -> Iterator[Line]:
    left, right = (side.to(run.device) for side in random_start(batch, run.width))
    found = in_turn({name: partial(forward_backward, way, left, right) for name, (way, _) in WAYS.items()}, run)
    for name, turns in found.items():
        line = timed_line(turns, found["naive"], operations(name, batch, run.width, run.device))
        yield {"part": "info_nce", "way": name, "batch": batch, "width": run.width, **line}


def _errors(run: Run, batch: int) -> Iterator[Line]:
    """Compare losses and gradients with those of the plain way in float64, in four regimes."""
    for kind, data in DATA.items():
        left, right = data(batch, run.width)
        loss, gradient = forward_backward(naive, left.double(), right.double())
        for name, (way, _) in WAYS.items():
            other, found = (given.cpu() for given in forward_backward(way, left.to(run.device), right.to(run.device)))
            yield {
                "part": "info_nce",
                "way": name,
                "batch": batch,
                "width": run.width,
                "data": kind,
                "loss": figure(loss.item()),
                "loss_error": figure(abs(other.item() - loss.item()) / loss.item()),
                "gradient_error": figure(((found - gradient).norm() / gradient.norm()).item()),
            }


def _peaks(run: Run, batches: list[int]) -> Iterator[Line]:
    for batch in batches:
        for name in WAYS:
            peak = peak_of("info_nce", way=name, batch=batch, width=run.width, device=str(run.device))
            yield {"part": "info_nce", "way": name, "batch": batch, "width": run.width, "peak_mib": peak}


def work(way: str, batch: int, width: int, device: str) -> float:
    """Measure the peak memory of one way here: beyond the inputs, gradients included."""
    left, right = (side.to(device) for side in random_start(batch, width))
    loss = WAYS[way][0]
    return raised_by(
        lambda: forward_backward(loss, left[:64], right[:64]),
        lambda: forward_backward(loss, left, right),
        torch.device(device),
    )

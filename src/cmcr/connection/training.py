"""The training loop: two projectors, learned from the enhanced embeddings of the overlap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cmcr.connection.enhancement import complete, noise_deviation
from cmcr.connection.losses import LossTerms, connection_loss
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import Settings
from cmcr.errors import DimensionError, TooFewRowsError, TrainingError


@dataclass(frozen=True)
class Side:
    """What one space brings to the training.

    Attributes:
        overlap: `(n, D)` unit rows of the overlap items.
        consistent: `(n, D)` their counterparts in the space's other modality (see `semantic_consistency`).
    """

    overlap: Tensor
    consistent: Tensor


@dataclass(frozen=True)
class Trained:
    """What training gives.

    Attributes:
        left: projector of the left space, in evaluation mode, on the CPU.
        right: the same of the right space.
        history: the loss terms of every step, by the names of `LossTerms`.
    """

    left: Projector
    right: Projector
    history: dict[str, list[float]]


def train(
    left: Side,
    right: Side,
    settings: Settings,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Trained:
    """Learn the two projectors with AdamW under a cosine decay.

    Every step takes a batch of overlap items, completes all four embeddings of each with fresh noise, projects them and
    descends on `connection_loss`. Every pass visits the items in a new order; a last batch that is not full is left out.

    The seed alone decides the initial weights, the order and the noise: on one machine and device type CPU the same
    inputs give the same weights bit for bit. The caller's random state is left as it was.

    Args:
        left: embeddings of the left space.
        right: embeddings of the right space; row i is the same overlap item.
        settings: everything else.
        seed: a whole number, 0 or more.
        device: where to train.
        progress: called with the share of steps done, in (0, 1].

    Returns:
        The projectors and the history of the loss.

    Raises:
        DimensionError: row counts that do not match.
        TooFewRowsError: fewer than two overlap items.
        TrainingError: the loss became NaN or infinite.
    """
    rows = len(left.overlap)
    if {len(left.consistent), len(right.overlap), len(right.consistent)} != {rows}:
        raise DimensionError("all four sets of embeddings must have one row per overlap item.")
    if rows < 2:
        raise TooFewRowsError(f"expected at least 2 overlap items to contrast with each other, got {rows}.")
    left, right = _moved(left, device), _moved(right, device)
    seeds = [int(part) for part in np.random.SeedSequence(seed).generate_state(3)]
    projectors = _initial(left, right, settings, seeds[0], device)
    order = torch.Generator().manual_seed(seeds[1])
    noise = torch.Generator(device).manual_seed(seeds[2])
    optimizer = torch.optim.AdamW(
        [p for projector in projectors for p in projector.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    batch = settings.rows_per_step(rows)
    total = settings.epochs * (rows // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    history: list[Tensor] = []
    for step, chosen in enumerate(_batches(rows, batch, settings.epochs, order), start=1):
        terms = _loss(projectors, left, right, chosen.to(device), settings, noise)
        optimizer.zero_grad(set_to_none=True)
        terms.total.backward()
        optimizer.step()
        schedule.step()
        history.append(torch.stack([term.detach() for term in terms]))
        if step % 20 == 0 or step == total:
            _check_loss(history[-1], step, total)
            if progress is not None:
                progress(step / total)
    by_term = torch.stack(history).T.cpu().tolist()
    return Trained(
        left=projectors[0].cpu().eval(),
        right=projectors[1].cpu().eval(),
        history=dict(zip(LossTerms._fields, by_term, strict=True)),
    )


def _moved(side: Side, device: torch.device | str) -> Side:
    return Side(side.overlap.to(device, torch.float32), side.consistent.to(device, torch.float32))


def _initial(
    left: Side, right: Side, settings: Settings, seed: int, device: torch.device | str
) -> tuple[Projector, Projector]:
    """Two projectors in training mode, drawn from the seed without touching the caller's random state."""
    widths = left.overlap.shape[1], right.overlap.shape[1]
    shape = settings.projector_shape(*widths)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would reseed the GPUs too, for which nothing is restored here.
        torch.default_generator.manual_seed(seed)
        projectors = Projector(widths[0], shape), Projector(widths[1], shape)
    return projectors[0].to(device).train(), projectors[1].to(device).train()


def _batches(rows: int, batch: int, epochs: int, order: torch.Generator) -> Iterator[Tensor]:
    """Row numbers of each step: full batches of a fresh permutation, epoch after epoch."""
    for _ in range(epochs):
        shuffled = torch.randperm(rows, generator=order)
        for start in range(0, rows - batch + 1, batch):
            yield shuffled[start : start + batch]


def _loss(
    projectors: tuple[Projector, Projector],
    left: Side,
    right: Side,
    chosen: Tensor,
    settings: Settings,
    noise: torch.Generator,
) -> LossTerms:
    """Complete, project and compare one batch."""
    projected = []
    for projector, side in zip(projectors, (left, right), strict=True):
        deviation = noise_deviation(settings.noise_variance, projector.width_in, settings.rescale_noise)
        overlap = complete(side.overlap[chosen], deviation, noise)
        consistent = complete(side.consistent[chosen], deviation, noise)
        projected.append(projector.project_both(overlap, consistent, settings.batch_norm))
    return connection_loss(
        projected[0],
        projected[1],
        ttc_temperature=settings.ttc_temperature,
        avc_temperature=settings.avc_temperature,
        ttc_weight=settings.ttc_weight,
        avc_weight=settings.avc_weight,
        intra_weight=settings.intra_weight,
        intra_distance=settings.intra_distance,
    )


def _check_loss(terms: Tensor, step: int, total: int) -> None:
    if not torch.isfinite(terms).all():
        raise TrainingError(
            f"the loss is no longer a finite number by step {step} of {total}. Lower learning_rate or raise the "
            "temperatures."
        )

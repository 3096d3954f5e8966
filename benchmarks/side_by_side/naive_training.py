"""The training as it is usually written: torch's modules, whole tables of logits, torch's defaults."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmcr.connection.settings import Settings
from side_by_side.contrast import naive as naive_info_nce

Sets = tuple[Tensor, Tensor, Tensor, Tensor]
"""Rows of the overlap and of its counterparts in the left space, then in the right one."""


def train(sets: Sets, settings: Settings) -> tuple[nn.Module, nn.Module]:
    """Train two projectors by the same losses and the same optimiser."""
    torch.manual_seed(0)
    device = sets[0].device
    left, right = (_projector(rows.shape[1]).to(device).train() for rows in (sets[0], sets[2]))
    parameters = [*left.parameters(), *right.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    count = len(sets[0])
    batch = settings.rows_per_step(count)
    total = settings.epochs * (count // batch)
    for step, chosen in enumerate(_batches(count, batch, settings.epochs)):
        noisy = [_completed(rows[chosen.to(device)], settings.noise_variance) for rows in sets]
        t_left, v = F.normalize(left(torch.cat(noisy[:2])), dim=1).chunk(2)
        t_right, a = F.normalize(right(torch.cat(noisy[2:])), dim=1).chunk(2)
        loss = naive_info_nce(t_left, t_right, settings.ttc_temperature)
        loss = loss + naive_info_nce(v, a, settings.avc_temperature)
        gap = (t_left - v).norm(dim=1).mean() + (t_right - a).norm(dim=1).mean()
        loss = loss + settings.intra_weight * gap / 2
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate / 2 * (1 + math.cos(math.pi * step / total))
        optimizer.step()
    return left.eval(), right.eval()


def _projector(width: int) -> nn.Module:
    """Make a projector of the published CLAP-CLIP shape."""
    layers = nn.Linear(width, 1024), nn.BatchNorm1d(1024), nn.ReLU(), nn.Linear(1024, 512), nn.BatchNorm1d(512)
    return nn.Sequential(*layers)


def _batches(count: int, batch: int, epochs: int) -> Iterator[Tensor]:
    for _ in range(epochs):
        order = torch.randperm(count)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def _completed(rows: Tensor, variance: float) -> Tensor:
    return F.normalize(rows + math.sqrt(variance) * torch.randn_like(rows), dim=1)

"""A whole training step: batch, noise, two projectors of the published CLAP-CLIP shape, all losses, the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from cmcr.recipes.costs import coarse_operations, training_operations

from cmcr.connection.settings import Settings, settings_of
from cmcr.connection.training import Side, train
from side_by_side import naive_training
from side_by_side.measuring import Line, Run, clock, figure, in_turn, random_rows, timed_line
from side_by_side.naive_training import Sets
from side_by_side.peaks import peak_of, raised_by
from side_by_side.rooflines import BFLOAT16, DEFAULT, FLOAT32

WAYS = ("naive", "ours_float32", "ours_bfloat16")


def measure(run: Run) -> Iterator[Line]:
    """Measure steps of two batch sizes, then what memory they need."""
    batches = {64: 2} if run.small else {2048: 4, 10_240: 1}
    sets = _sets(64, run.width, run.device)
    for way in WAYS:
        clock(_training(way, sets, 1), run.device)
    for batch, steps in batches.items():
        yield from _speed(run, batch, steps)
    for batch in batches:
        for way in ("ours_float32",) if run.small else WAYS:
            peak = peak_of("training", way=way, batch=batch, width=run.width, device=str(run.device))
            yield {"part": "training", "way": way, "batch": batch, "width": run.width, "peak_mib": peak}


def _speed(run: Run, batch: int, steps: int) -> Iterator[Line]:
    """Time short trainings, their set-up included on all sides."""
    sets = _sets(batch, run.width, run.device)
    found = in_turn({way: _training(way, sets, steps) for way in WAYS}, run)
    for way, turns in found.items():
        line = timed_line(turns, found["naive"], operations(way, batch, run.width, _settings(way, batch, steps)))
        each = {"seconds_a_step": figure(line["seconds"] / steps), "steps": steps}
        yield {"part": "training", "way": way, "batch": batch, "width": run.width, **each, **line}


def operations(way: str, rows: int, width: int, settings: Settings) -> dict[str, float]:
    """Count the operations of a training, by roofline.

    Of three or four products of a contrastive loss, ours in bfloat16 computes two in it; the naive way needs only three.
    """
    if way == "naive":
        return {DEFAULT: training_operations(rows, width, width, settings, recomputed=False)}
    done = training_operations(rows, width, width, settings)
    coarse = coarse_operations(rows, width, width, settings)
    return {FLOAT32: done - coarse, BFLOAT16: coarse}


def _settings(way: str, batch: int, steps: int) -> Settings:
    precision = "bfloat16" if way == "ours_bfloat16" else "float32"
    return settings_of("c-mcr-published", batch_size=batch, epochs=steps, precision=precision)


def _sets(batch: int, width: int, device: torch.device) -> Sets:
    """Draw as many rows as a batch has, so that each pass is a step."""
    left, v, right, a = (random_rows(batch, width, seed, device) for seed in range(4))
    return left, v, right, a


def _training(way: str, sets: Sets, steps: int) -> Callable[[], object]:
    settings = _settings(way, len(sets[0]), steps)
    if way == "naive":
        return partial(naive_training.train, sets, settings)
    sides = Side(sets[0], sets[1]), Side(sets[2], sets[3])
    return partial(train, *sides, settings, device=sets[0].device)


def work(way: str, batch: int, width: int, device: str) -> float:
    """Measure the peak memory of one step here, beyond the embeddings."""
    where = torch.device(device)
    small, sets = _sets(64, width, where), _sets(batch, width, where)
    return raised_by(_training(way, small, 1), _training(way, sets, 1), where)

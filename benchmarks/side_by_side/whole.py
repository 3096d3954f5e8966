"""`cmcr.connect` from arrays to a connection, against a straightforward script of the same steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

import cmcr
from cmcr.connection.settings import settings_of
from side_by_side import consistency, naive_training
from side_by_side.measuring import Line, Run, clustered_rows, in_turn, timed_line
from side_by_side.rooflines import BFLOAT16, DEFAULT, FLOAT32
from side_by_side.training import operations


@dataclass(frozen=True)
class Size:
    """How much there is to connect."""

    texts: int
    memory: int
    epochs: int
    batch: int


WHOLE = Size(200_000, 100_000, 6, 4096)  # 288 steps
PART = Size(18 * 4096, 16_954, 1, 4096)  # a sixteenth of the operations of either stage: 18 steps
SMALL = Size(256, 200, 1, 64)


def measure(run: Run) -> Iterator[Line]:
    """Measure one whole connection each way."""
    size = SMALL if run.small else WHOLE if run.whole else PART
    start = torch.device("cpu")  # where arrays are, and bringing them to the device is part of the work
    texts = [clustered_rows(size.texts, run.width, seed, start) for seed in (0, 1)]
    outer = [clustered_rows(size.memory, run.width, seed, start) for seed in (2, 3)]
    ways = {
        "naive": partial(_naive, texts, outer, size, run.device),
        "ours_float32": partial(_ours, texts, outer, size, run.device, "float32"),
        "ours_bfloat16": partial(_ours, texts, outer, size, run.device, "bfloat16"),
    }
    found = in_turn(ways, replace(run, rounds=1))
    settings = settings_of("c-mcr-published", epochs=size.epochs, batch_size=size.batch)
    means = 2 * 4.0 * size.texts * size.memory * run.width
    for way, turns in found.items():
        needed = operations(way, size.texts, run.width, settings)
        roofline = {"naive": DEFAULT, "ours_float32": FLOAT32, "ours_bfloat16": BFLOAT16}[way]
        needed[roofline] = needed.get(roofline, 0.0) + means
        line = timed_line(turns, found["naive"], needed)
        steps = size.epochs * (size.texts // size.batch)
        amount = {"texts": size.texts, "memory_rows": size.memory, "steps": steps, "batch": size.batch}
        yield {"part": "connect", "way": way, **amount, "width": run.width, **line}


def _ours(texts: list[Tensor], outer: list[Tensor], size: Size, device: torch.device, precision: str) -> object:
    return cmcr.connect(
        cmcr.Memories("left", text=texts[0], image=outer[0]),
        cmcr.Memories("right", text=texts[1], audio=outer[1]),
        method="c-mcr-published",
        device=str(device),
        epochs=size.epochs,
        batch_size=size.batch,
        precision=precision,
    )


def _naive(texts: list[Tensor], outer: list[Tensor], size: Size, device: torch.device) -> object:
    texts, outer = ([rows.to(device) for rows in each] for each in (texts, outer))
    v, a = (F.normalize(consistency.naive(q, m), dim=1) for q, m in zip(texts, outer, strict=True))
    settings = settings_of("c-mcr-published", epochs=size.epochs, batch_size=size.batch)
    return naive_training.train((texts[0], v, texts[1], a), settings)

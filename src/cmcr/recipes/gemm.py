"""How fast this machine multiplies matrices: the one thing that a plan measures."""

from __future__ import annotations

import statistics
import time

import torch

from cmcr.connection.products import Precision, fast_float32

CONSISTENCY_SHARE: dict[Precision, float] = {"float32": 0.9, "bfloat16": 0.73}
"""Of the rate of plain products, what a streamed semantic consistency reaches; the rest are powers of two and sums.

Measured on two cores, as the shares of the rooflines in benchmarks/speed.py: 0.86 to 0.96 in float32, 0.73 to 0.82 in
bfloat16 from 1024 queries on.
"""

TRAINING_SHARE: dict[Precision, float] = {"float32": 0.8, "bfloat16": 0.72}
"""The same of a training, each product counted at the rate of its own precision; the rest are noise, batch normalisation,
softmaxes and AdamW.

Measured likewise, in batches of 10,240: 0.77 in float32, 0.72 in bfloat16.
"""

_SECONDS = 1.5
_SIDES = {"cpu": (1024, 512, 2048)}  # of a block of semantic consistency
_SIDES_OF_GPUS = (8192, 8192, 8192)


def gemm_rate(device: torch.device, precision: Precision = "float32", seconds: float = _SECONDS) -> float:
    """Measure operations a second of plain matrix products, as the median over `seconds`.

    Args:
        device: where to compute.
        precision: of the factors.
        seconds: how long to measure, after one product that warms up.
    """
    rows, width, columns = _SIDES.get(device.type, _SIDES_OF_GPUS)
    drawn = torch.Generator().manual_seed(0)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left = torch.randn(rows, width, generator=drawn).to(device, dtype)
    right = torch.randn(width, columns, generator=drawn).to(device, dtype)
    out = torch.empty(rows, columns, device=device, dtype=dtype)

    def timed() -> float:
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        out[0, 0].item()  # waits for a GPU
        return time.perf_counter() - start

    with fast_float32():
        timed()
        until = time.perf_counter() + seconds
        times = [timed()]
        while time.perf_counter() < until:
            times.append(timed())
    return 2.0 * rows * width * columns / statistics.median(times)

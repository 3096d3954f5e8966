"""What share of the rate of plain matrix products our two steps reach: the constants that `cmcr plan` scales its times by.

Plain products, a semantic consistency and a training take turns in one process. Prints one JSON line with the median of the
ratios of each round.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from cmcr.connection.enhancement import semantic_consistency
from cmcr.connection.settings import settings_of
from cmcr.connection.training import Side, train
from cmcr.embeddings import choose_device
from cmcr.recipes.costs import consistency_operations, training_operations
from cmcr.recipes.gemm import gemm_rate


def main() -> None:
    """Measure on one device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=2048)
    parser.add_argument("--memory", type=int, default=32_768)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    drawn = torch.Generator().manual_seed(0)

    def rows(count: int) -> torch.Tensor:
        return F.normalize(torch.randn(count, arguments.width, generator=drawn), dim=1).to(device)

    queries, memory = rows(arguments.queries), rows(arguments.memory)
    sides = [Side(rows(arguments.batch), rows(arguments.batch)) for _ in range(2)]
    settings = dataclasses.replace(
        settings_of("c-mcr-published"), epochs=arguments.steps, batch_size=arguments.batch, width=arguments.width
    )
    training = training_operations(arguments.batch, arguments.width, arguments.width, settings)
    consistency = consistency_operations(arguments.queries, arguments.memory, arguments.width)
    shares: dict[str, list[float]] = {"consistency": [], "training": []}
    gemm = 0.0
    for number in range(arguments.rounds + 1):
        gemm = gemm_rate(device, seconds=0.5)
        rates = {
            "consistency": consistency / _seconds(lambda: semantic_consistency(queries, memory)[0, 0].item()),
            "training": training / _seconds(lambda: train(sides[0], sides[1], settings, device=device)),
        }
        gemm = (gemm + gemm_rate(device, seconds=0.5)) / 2
        if number:  # the first round warms up
            for name, rate in rates.items():
                shares[name].append(rate / gemm)
    found = {name: round(statistics.median(several), 2) for name, several in shares.items()}
    print(json.dumps({"benchmark": "shares_of_gemm", "device": str(device), "gemm_gflops": round(gemm / 1e9), **found}))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

"""Where a training step spends its time: in matrix products or outside of them.

Prints one JSON line a batch size, from torch's profiler: the time of a step, the share of it in matrix products, and the
largest operations outside. The overlap is random; shapes are those of the published CLAP-CLIP connection.
"""

from __future__ import annotations

import argparse
import json
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from cmcr.connection.learner import Learner
from cmcr.connection.losses import LossTerms
from cmcr.connection.settings import settings_of
from cmcr.connection.training import Side, train

PRODUCTS = {"aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm"}
WIDTH = 512


def main() -> None:
    """Profile the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[2048, 10_240])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    for batch in arguments.batch:
        print(json.dumps(profiled(batch, arguments.steps, arguments.precision, arguments.device)), flush=True)


def profiled(batch: int, steps: int, precision: str, device: str) -> dict[str, object]:
    """Profile some steps of a training, after one that warms up."""
    settings = settings_of("c-mcr-published", epochs=steps + 1, batch_size=batch, precision=precision)
    drawn = torch.Generator().manual_seed(0)
    sides = [Side(_unit(batch, drawn), _unit(batch, drawn)) for _ in range(2)]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.startswith("cuda") else [])]
    profiler = profile(activities=activities)
    descend = Learner.descend

    def watched(learner: Learner, terms: LossTerms) -> None:
        descend(learner, terms)
        if learner.step == 1:
            profiler.start()

    with mock.patch.object(Learner, "descend", watched):
        train(sides[0], sides[1], settings, device=device)
    profiler.stop()
    on_gpu = device.startswith("cuda")
    own = {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / steps / 1e6
        for event in profiler.key_averages()
    }
    total, products = sum(own.values()), sum(seconds for name, seconds in own.items() if name in PRODUCTS)
    outside = sorted(((seconds, name) for name, seconds in own.items() if name not in PRODUCTS), reverse=True)
    return {
        "benchmark": "training_profile",
        "batch": batch,
        "precision": precision,
        "seconds_a_step": round(total, 3),
        "share_in_products": round(products / total, 3),
        "largest_outside": {name: round(seconds / total, 3) for seconds, name in outside[:8]},
        "threads": torch.get_num_threads(),
    }


def _unit(rows: int, drawn: torch.Generator) -> Tensor:
    return F.normalize(torch.randn(rows, WIDTH, generator=drawn), dim=1)


if __name__ == "__main__":
    main()

"""The heavy steps of a connection beside the naive way, and beside the machine's own rate of matrix products.

    python benchmarks/speed.py                        everything, some six minutes on two cores
    python benchmarks/speed.py --out benchmarks/results/speed.json      the table of docs/speed.md
    python benchmarks/speed.py --only info_nce        one part
    python benchmarks/speed.py --before OTHER/src     an older version of cmcr in turn, in the same run
    python benchmarks/speed.py --device cuda          on a GPU

Each part runs in a process of its own, in which the ways take turns, so that a disturbance hits all of them; the best of
`--rounds` counts. Prints one JSON line a part and a table at the end. docs/speed.md holds what was measured and how to read
it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tables import as_markdown, result_table, save

TEMPERATURE = 0.01
HERE = Path(__file__).resolve()


def consistency(options: argparse.Namespace, precision: Any) -> dict[str, float]:
    """Semantic consistency of 4,096 queries and 65,536 rows, width 512, beside softmax over chunks."""
    import torch

    from cmcr.connection.enhancement import semantic_consistency

    count, rows, width = (256, 4096, 64) if options.small else (4096, 65_536, 512)
    queries, memory = _unit(count, width, 0, options.device), _unit(rows, width, 1, options.device)

    def naive() -> Any:
        parts = [torch.softmax(q @ memory.T / TEMPERATURE, dim=1) @ memory for q in queries.split(1024)]
        return torch.cat(parts)

    def ours() -> Any:
        return semantic_consistency(queries, memory, TEMPERATURE, precision=precision)

    product = _product(options, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    best = _in_turn({"naive": naive, "ours": ours, "product": product}, options)
    exact = torch.softmax(queries[:64].double() @ memory.double().T / TEMPERATURE, dim=1) @ memory.double()
    cosine = torch.nn.functional.cosine_similarity(ours()[:64].double(), exact)
    side = _side(options)
    rate = 4 * side**2 * width / best["product"]
    return {
        "seconds": best["ours"],
        "times naive": best["naive"] / best["ours"],
        "share of products": 4 * count * rows * width / best["ours"] / rate,
        "GFLOP/s of products": rate / 1e9,
        "mean 1 - cos": float((1 - cosine).mean()),
    }


def info_nce(options: argparse.Namespace, precision: Any) -> dict[str, float]:
    """Loss and gradient of a batch of 10,240, width 512, beside two cross-entropies over the whole table."""
    from torch.nn import functional as F

    from cmcr.connection.losses import info_nce as contrast

    batch, width = (256, 64) if options.small else (10_240, 512)
    left = _unit(batch, width, 0, options.device).requires_grad_()
    right = F.normalize(left.detach() + 0.06 * _unit(batch, width, 1, options.device), dim=1).requires_grad_()

    def ours() -> None:
        left.grad = right.grad = None
        contrast(left, right, TEMPERATURE, precision=precision).backward()

    def naive() -> None:
        left.grad = right.grad = None
        _naive_info_nce(left, right).backward()

    peak = _peak_mib(ours, options)
    best = _in_turn({"naive": naive, "ours": ours}, options)
    return {"seconds": best["ours"], "times naive": best["naive"] / best["ours"], "peak MiB": peak}


def training_step(options: argparse.Namespace, precision: Any) -> dict[str, float]:
    """A step of a training at a batch of 10,240, the mean of three, beside torch's modules as they come.

    The method alone: `cmcr.connect` also examines the rows before and the connection after, for a second or two.
    """
    import numpy as np
    import torch

    import cmcr
    from cmcr.connection.links import links_of
    from cmcr.connection.methods import c_mcr, settings_of
    from cmcr.connection.methods.fitting import Run
    from cmcr.engine.precision import fast_float32

    rows, width = (512, 32) if options.small else (10_240, 512)
    sets = [_unit(rows, width, seed, torch.device("cpu")) for seed in range(4)]
    left = cmcr.Memories("a", text=sets[0], image=sets[1])
    right = cmcr.Memories("b", text=sets[2], audio=sets[3])
    parents = links_of([left, right])[0].parents
    shape: dict[str, Any] = {"batch_size": rows, "width": width, "hidden": (2 * width,), "semantic_consistency": False}
    settings = settings_of("c-mcr", epochs=3, precision=precision, **shape)

    def ours() -> None:
        with fast_float32():
            c_mcr.fit(*parents, settings, Run(0, options.device))

    np.random.seed(0)
    best = _in_turn({"naive": lambda: _naive_training(sets, options.device, 3), "ours": ours}, options)
    return {"seconds": best["ours"] / 3, "times naive": best["naive"] / best["ours"]}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "semantic_consistency float32": lambda options: consistency(options, "float32"),
    "semantic_consistency bfloat16": lambda options: consistency(options, "bfloat16"),
    "info_nce float32": lambda options: info_nce(options, "float32"),
    "info_nce bfloat16": lambda options: info_nce(options, "bfloat16"),
    "training_step float32": lambda options: training_step(options, "float32"),
    "training_step bfloat16": lambda options: training_step(options, "bfloat16"),
}


def main(arguments: list[str] | None = None) -> None:
    """Measure all parts, each version in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="parts whose names begin so")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything works")
    parser.add_argument("--before", type=Path, help="src of an older version to measure in turn")
    parser.add_argument("--out", type=Path, help="JSON of the table")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        import torch

        options.device = torch.device(options.device)
        print(json.dumps(PARTS[options.part](options)), flush=True)
        return
    sources = {"now": HERE.parent.parent / "src", **({"before": options.before} if options.before else {})}
    lines = []
    for part in PARTS:
        for version, source in sources.items():
            if part.startswith(options.only):
                line = {"part": part, "version": version, **_measured(part, source, options)}
                print(json.dumps(line), flush=True)
                lines.append(line)
    if options.out:
        save(options.out, options, {"parts": _table(lines)})
    print(as_markdown(_table(lines)))


def _measured(part: str, source: Path, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, str(HERE), "--part", part, "--device", options.device, "--rounds", str(options.rounds)]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(
        command + ["--small"] * options.small, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _table(lines: list[dict[str, Any]]) -> dict[str, Any]:
    columns = list(dict.fromkeys(key for line in lines for key in line))
    rows = [[f"{cell:.3g}" if isinstance(cell, float) else cell for cell in map(line.get, columns)] for line in lines]
    return result_table(dict.fromkeys(columns, "{}"), [["" if cell is None else cell for cell in row] for row in rows])


def _in_turn(ways: dict[str, Callable[[], Any]], options: argparse.Namespace) -> dict[str, float]:
    """Time ways in turn, A B C A B C, and return the best seconds of each; a first round warms up."""
    best = dict.fromkeys(ways, math.inf)
    for number in range(options.rounds + 1):
        for name, way in ways.items():
            _wait(options.device)
            start = time.perf_counter()
            way()
            _wait(options.device)
            if number:
                best[name] = min(best[name], time.perf_counter() - start)
    return best


def _wait(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _side(options: argparse.Namespace) -> int:
    return 256 if options.small else 2048 if options.device.type == "cpu" else 8192


def _product(options: argparse.Namespace, dtype: Any) -> Callable[[], None]:
    """The products of one tile and back, into buffers that are there already: what no way can be faster than."""
    import torch

    module = "cmcr.engine.precision" if find_spec("cmcr.engine") else "cmcr.connection.products"  # of older versions
    fast_float32 = import_module(module).fast_float32
    side, width = _side(options), 64 if options.small else 512
    first, second = (_unit(side, width, seed, options.device).to(dtype) for seed in (0, 1))
    tile, back = torch.empty(side, side, dtype=dtype, device=options.device), torch.empty_like(first)

    def product() -> None:
        with fast_float32() if options.device.type == "cpu" else contextlib.nullcontext():
            torch.mm(first, second.T, out=tile)
            torch.mm(tile, second, out=back)

    return product


def _unit(rows: int, width: int, seed: int, device: Any) -> Any:
    import torch

    drawn = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1).to(device)


def _peak_mib(work: Callable[[], None], options: argparse.Namespace) -> float:
    """Memory that a call needs beyond what is there before it, its results included."""
    if options.device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return float(torch.cuda.max_memory_allocated() - before) / 2**20
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit


def _naive_info_nce(left: Any, right: Any) -> Any:
    import torch
    from torch.nn import functional as F

    logits, pairs = left @ right.T / TEMPERATURE, torch.arange(len(left), device=left.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _naive_training(sets: list[Any], device: Any, steps: int) -> None:
    """The training as it is usually written: torch's modules, whole tables of logits."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    width = sets[0].shape[1]

    def projector() -> nn.Module:
        layers = nn.Linear(width, 2 * width), nn.BatchNorm1d(2 * width), nn.ReLU()
        return nn.Sequential(*layers, nn.Linear(2 * width, width), nn.BatchNorm1d(width)).to(device)

    left, right = projector(), projector()
    optimizer = torch.optim.AdamW([*left.parameters(), *right.parameters()], lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randperm(len(sets[0]))
        noisy = [
            F.normalize(rows[chosen] + math.sqrt(0.004 * 512 / width) * torch.randn_like(rows), dim=1).to(device)
            for rows in sets
        ]
        t_left, v = F.normalize(left(torch.cat(noisy[:2])), dim=1).chunk(2)
        t_right, a = F.normalize(right(torch.cat(noisy[2:])), dim=1).chunk(2)
        gap = (t_left - v).norm(dim=1).mean() + (t_right - a).norm(dim=1).mean()
        loss = _naive_info_nce(t_left, t_right) + _naive_info_nce(v, a) + 0.1 * gap / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


if __name__ == "__main__":
    main()

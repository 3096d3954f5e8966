"""Semantic consistency by tiles (`approximate_consistency`) against the plain softmax and the exact, streamed one.

Per kind of data one JSON line: how many times faster than the plain way, with the tiles ready and with their preparation
shared among so many queries; 1 - cosine to the exact result; and the share of the tiles read. All is measured in one
process, in turn. The plain way takes 64 or 256 queries at once, whichever is faster here.

    python benchmarks/approximate.py --memory 1000000
    python benchmarks/approximate.py --memory 20000 --queries 512 --tiles 64   # a quick look

Kinds: "clusters" 64 clusters and noise; "sphere" random unit rows without any structure; "spectrum" eigenvalues ~ 1 / i,
a common offset, and queries whose mean is another (a modality gap); "nested" the same, with 64 clusters of 8192 smaller
ones; "repeated" the nested kind, each row about 20 times.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

import tiled_memory
from cmcr.connection.enhancement import semantic_consistency
from tiled_memory import approximate_consistency, tile_memory

TEMPERATURE = 0.01
COMPARED = 256
KINDS = ("clusters", "sphere", "spectrum", "nested", "repeated")


def main() -> None:
    """Measure every kind of data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--memory", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=8192)
    parser.add_argument("--tiles", type=int, default=1024)
    parser.add_argument("--tolerance", type=float, default=2e-3)
    parser.add_argument("--shared", type=int, default=200_000, help="queries that share the preparation")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    for kind in arguments.kinds:
        print(json.dumps(measure(kind, arguments)), flush=True)


def measure(kind: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Measure one kind of data."""
    memory, queries = data(kind, arguments.memory, False), data(kind, arguments.queries, True)
    some = queries[:COMPARED]
    start = time.perf_counter()
    tiles = tile_memory(memory, arguments.tiles)
    preparation = time.perf_counter() - start
    plain_times, exact_times, tile_times = [], [], []
    result = exact = queries
    for _ in range(arguments.repeats):
        seconds, result = timed(partial(approximate_consistency, queries, tiles, tolerance=arguments.tolerance))
        tile_times.append(seconds / len(queries))
        plain_times += [timed(partial(plain, some, memory, chunk))[0] / len(some) for chunk in (64, 256)]
        seconds, exact = timed(partial(semantic_consistency, some, memory))
        exact_times.append(seconds / len(some))
    apart = 1 - F.cosine_similarity(result[:COMPARED].double(), exact.double())
    read = tiled_memory._tiles_to_read(some, tiles, TEMPERATURE, arguments.tolerance)[0].float()
    return {
        "benchmark": "approximate",
        "kind": kind,
        "memory_rows": len(memory),
        "queries": len(queries),
        "tiles": len(tiles.counts),
        "times_faster_than_plain": round(min(plain_times) / min(tile_times), 1),
        "with_preparation": round(min(plain_times) / (min(tile_times) + preparation / arguments.shared), 1),
        "exact_times_faster_than_plain": round(min(plain_times) / min(exact_times), 1),
        "plain_gflops": round(4e-9 * memory.numel() / min(plain_times)),
        "preparation_seconds": round(preparation, 1),
        "rows_read": round(float((read @ tiles.counts).mean() / len(memory)), 3),
        "rows_that_count": round(median(effective_rows(some[:64], memory))),
        "best_cosine": round(float((some[:64] @ memory.T).amax(dim=1).mean()), 2),
        "one_minus_cosine": {name: float(f"{value:.1e}") for name, value in spread(apart).items()},
        "threads": torch.get_num_threads(),
    }


def plain(queries: Tensor, memory: Tensor, chunk: int) -> Tensor:
    """The way it is usually written."""
    return torch.cat([torch.softmax(q @ memory.T / TEMPERATURE, dim=1) @ memory for q in queries.split(chunk)])


def effective_rows(queries: Tensor, memory: Tensor) -> list[float]:
    """1 over the sum of the squared weights of each query."""
    weights = torch.softmax(queries @ memory.T / TEMPERATURE, dim=1)
    return [float(value) for value in 1 / weights.square().sum(dim=1)]


def spread(values: Tensor) -> dict[str, float]:
    """Sum up how far apart the rows are."""
    return {"mean": float(values.mean()), "median": float(values.median()), "worst": float(values.max())}


def timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Run some work and take the time."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def data(kind: str, rows: int, are_queries: bool, width: int = 512) -> Tensor:
    """Unit rows `(rows, width)` of a kind of data, always the same ones."""
    generator = torch.Generator().manual_seed(int(are_queries))
    if kind == "repeated" and not are_queries:
        distinct = data("nested", rows // 20, False, width)
        return distinct[(torch.rand(rows, generator=generator).square() * len(distinct)).long()]
    result = torch.empty(rows, width)
    for start in range(0, rows, 65_536):
        part = result[start : start + 65_536]
        part.copy_(F.normalize(_block(kind, len(part), are_queries, width, generator), dim=1))
    return result


def _block(kind: str, rows: int, are_queries: bool, width: int, generator: torch.Generator) -> Tensor:
    fixed = torch.Generator().manual_seed(11)
    noise = torch.randn(rows, width, generator=generator)
    if kind == "sphere":
        return noise
    coarse = torch.randn(64, width, generator=fixed)
    if kind == "clusters":
        return coarse[torch.randint(64, (rows,), generator=generator)] + noise
    axes = 1 / torch.arange(1, width + 1).float()
    axes = (axes / axes.sum()).sqrt()
    if kind != "spectrum":
        fine, parents = torch.randn(8192, width, generator=fixed), torch.randint(64, (8192,), generator=fixed)
        chosen = torch.randint(8192, (rows,), generator=generator)
        noise = 0.3**0.5 * (coarse[parents[chosen]] + fine[chosen]) + 0.4**0.5 * noise
    rows_of_kind = noise * axes
    means = F.normalize(torch.randn(2, width, generator=fixed), dim=1)
    if not are_queries:
        return 0.6**0.5 * means[0] + 0.4**0.5 * rows_of_kind
    own = torch.randn(rows, width, generator=generator) * axes[torch.randperm(width, generator=fixed)]
    rows_of_kind = 0.4**0.5 * rows_of_kind + 0.6**0.5 * own
    return 0.6**0.5 * F.normalize(0.2 * means[0] + means[1], dim=0) + 0.4**0.5 * rows_of_kind


if __name__ == "__main__":
    main()

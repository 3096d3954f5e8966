"""Semantic consistency: ours, streamed, against the plain softmax of whole rows, side by side in one process.

Prints one JSON line per size: the ratio of times (the figure to trust on a noisy machine), the largest difference from a
float64 softmax, and how much scratch memory each way needs.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from cmcr.connection.enhancement import semantic_consistency

TEMPERATURE = 0.01


def plain(queries: Tensor, memory: Tensor) -> Tensor:
    """The way it is usually written: all logits of a chunk of queries at once."""
    return torch.cat([torch.softmax(q @ memory.T / TEMPERATURE, dim=1) @ memory for q in queries.split(1024)])


def main() -> None:
    """Run the sweep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=2048)
    parser.add_argument("--memory", type=int, nargs="+", default=[4096, 16_384, 65_536])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    for rows in arguments.memory:
        memory = _clustered(rows, arguments.width, generator)
        queries = _clustered(arguments.queries, arguments.width, generator)
        ours, theirs = [], []
        for _ in range(arguments.repeats):
            ours.append(_seconds(partial(semantic_consistency, queries, memory, TEMPERATURE)))
            theirs.append(_seconds(partial(plain, queries, memory)))
        exact = plain(queries[:64].double(), memory.double())
        operations = 4.0 * arguments.queries * rows * arguments.width
        print(
            json.dumps(
                {
                    "benchmark": "semantic_consistency",
                    "queries": arguments.queries,
                    "memory_rows": rows,
                    "width": arguments.width,
                    "times_faster_than_plain": round(min(theirs) / min(ours), 2),
                    "gflops": round(operations / min(ours) / 1e9),
                    "largest_error": float(
                        (semantic_consistency(queries[:64], memory, TEMPERATURE) - exact).abs().max()
                    ),
                    "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                    "threads": torch.get_num_threads(),
                }
            ),
            flush=True,
        )


def _clustered(rows: int, width: int, generator: torch.Generator) -> Tensor:
    """Unit rows around 64 fixed centres, so that many rows share the weight of each query, as real embeddings do."""
    centres = torch.randn(64, width, generator=torch.Generator().manual_seed(1))
    chosen = torch.randint(64, (rows,), generator=generator)
    return F.normalize(centres[chosen] + torch.randn(rows, width, generator=generator), dim=1)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

"""Search beside the bare product and its top-k, and the back-ends beside each other, on rows drawn from clusters.

    python benchmarks/search.py                       everything, some ten minutes on two cores; 4 GB of disk, 6 GB of RAM
    python benchmarks/search.py --only exact          exact search at 1 k, 100 k and 1 M rows, as a ratio
    python benchmarks/search.py --only backends --rows 200000
    python benchmarks/search.py --small               tiny sizes, to see that it runs

A row is one of sqrt(N) random directions plus noise, at a cosine of about 0.7 to it, of length one; queries are drawn as
rows are and are none of them. Bare is `torch.topk(queries @ rows.T, 10)` on rows in RAM; ours searches the memory on disk,
mapped, in turn with it: the median of `--rounds` ratios counts. One JSON line a figure.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cmcr import Memory, write_memory
from cmcr.search.backends import KINDS, build_backend, open_backend
from cmcr.search.exact import ExactIndex

WIDTH, BEST = 512, 10
BATCHES = (1, 16, 128)
NOISE = 1.0  # of the length of a centre: cosines of 0.7


def clustered(count: int, seed: int, centres: int) -> Iterator[NDArray[np.float32]]:
    """Draw rows in blocks: `(n, WIDTH)`; the centres are the same for all seeds."""
    middle = np.random.default_rng(0).standard_normal((centres, WIDTH), dtype=np.float32)
    rng = np.random.default_rng(seed)
    for start in range(0, count, 16_384):
        size = min(16_384, count - start)
        rows = middle[rng.integers(centres, size=size)] + NOISE * rng.standard_normal((size, WIDTH), dtype=np.float32)
        yield rows / np.linalg.norm(rows, axis=1, keepdims=True)


def written(folder: Path, count: int, dtype: str = "float32") -> Memory:
    """Write a memory of `count` rows."""
    blocks = clustered(count, 1, int(count**0.5))
    ids = list(map(str, range(count)))
    return write_memory(folder, blocks, ids, space="x", modality="image", dtype=dtype)


def queries_for(rows: int, count: int) -> NDArray[np.float32]:
    """Draw queries for a memory of so many rows."""
    return next(clustered(count, 2, int(rows**0.5)))


def seconds(work: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    """Time one call."""
    start = time.perf_counter()
    work(*arguments, **options)
    return time.perf_counter() - start


def bare(queries: torch.Tensor, rows: torch.Tensor) -> Any:
    """Find the best rows as one line of torch does."""
    return torch.topk(queries @ rows.T, BEST)


def exact(folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compare exact search with the bare product and top-k."""
    for count in (1000, 2000, 5000) if options.small else (1000, 100_000, 1_000_000):
        memory = written(folder / str(count), count)
        index, held = ExactIndex(memory), torch.from_numpy(memory[:])
        for batch in BATCHES:
            queries = queries_for(count, batch)
            given, times = torch.from_numpy(queries), []
            for turn in range(1 + options.rounds * (20 if count <= 5000 else 1)):
                plain = seconds(bare, given, held)
                ours = seconds(index.search, queries, BEST)
                times += [(plain, ours)] if turn else []
            yield {
                "figure": "exact search beside the bare product",
                "rows": count,
                "queries at once": batch,
                "bare ms": round(1e3 * median(plain for plain, _ in times), 3),
                "ours ms": round(1e3 * median(ours for _, ours in times), 3),
                "rate, of bare": round(median(plain / ours for plain, ours in times), 2),
            }
        del held


def filtered(folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Time exact search under filters, on rows kept in float16, and where all rows are equal."""
    count = options.rows
    index, queries = ExactIndex(written(folder / "rows", count)), queries_for(count, 16)
    rng = np.random.default_rng(3)
    cases = {f"{share:.0%} allowed": rng.random(count) < share for share in (0.01, 0.1, 0.4, 0.9)}
    for name, mask in {"no filter": None, **cases}.items():
        index.search(queries, BEST, allowed=mask)
        took = median(seconds(index.search, queries, BEST, allowed=mask) for _ in range(options.rounds))
        yield {"figure": "exact search, 16 queries", "rows": count, "case": name, "ms": round(1e3 * took, 2)}
    equal = np.broadcast_to(queries[:1], (count, WIDTH))
    others = {
        "float16": written(folder / "half", count, "float16"),
        "all rows equal": write_memory(folder / "equal", equal, space="x", modality="image", dtype="float32"),
    }
    for name, memory in others.items():
        index = ExactIndex(memory)
        index.search(queries, BEST)
        took = median(seconds(index.search, queries, BEST) for _ in range(options.rounds))
        yield {"figure": "exact search, 16 queries", "rows": count, "case": name, "ms": round(1e3 * took, 2)}


def backends(folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compare the back-ends: recall@10 of queries, time to build, queries a second, size on disk."""
    count = options.rows
    memory, queries = written(folder / "rows", count), queries_for(count, 512)
    truth = ExactIndex(memory).search(queries, BEST)[1]
    for kind in KINDS:
        start = time.perf_counter()
        card = None if kind == "exact" else build_backend(kind, folder / kind, ExactIndex(memory))
        took = time.perf_counter() - start
        index = open_backend(card, folder / kind, memory, None, None)
        found = index.search(queries, BEST)[1]
        hits = [len(set(ours) & set(theirs)) for ours, theirs in zip(found.tolist(), truth.tolist(), strict=True)]
        singles = [seconds(index.search, one, BEST) for one in queries[:64, None]]
        yield {
            "figure": "back-end",
            "kind": kind,
            "rows": count,
            "recall@10": round(float(np.mean(hits)) / BEST, 4),
            "recall@10 of its card": card.recall_at_10 if card else 1.0,
            "lists": card.lists if card else 0,
            "probes": card.probes if card else 0,
            "build s": round(took, 1),
            "ms a query": round(1e3 * median(singles), 2),
            "queries/s, 512 at once": round(512 / seconds(index.search, queries, BEST)),
            "MB beside the memory": round(
                sum(p.stat().st_size for p in (folder / kind).rglob("*") if p.is_file()) / 1e6
            ),
        }


def main() -> None:
    """Measure what is asked for in temporary folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"exact": exact, "filtered": filtered, "backends": backends}
    parser.add_argument("--only", choices=parts, help="one part")
    parser.add_argument("--rows", type=int, default=200_000, help="of filters and back-ends")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    options = parser.parse_args()
    options.rows = 5000 if options.small else options.rows
    for name in [options.only] if options.only else parts:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            for line in parts[name](Path(folder), options):
                print(json.dumps({**line, "threads": torch.get_num_threads()}), flush=True)


if __name__ == "__main__":
    main()

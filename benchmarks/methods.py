"""Every method beside every other: on the miniature connections over seeds, and on synthetic spaces over modality gaps.

    python benchmarks/methods.py miniature --seeds 5 --out benchmarks/results/methods.json    # the tables in docs/methods.md
    python benchmarks/methods.py gaps --seeds 3

A seed draws items and everything that a method draws. Figures are means in percent with Student's t interval at 95 % over
seeds; a mean of two directions throughout, unless a direction is named.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

import cmcr
import worlds
from cmcr.connection.methods import METHODS
from cmcr.data.numbers import UNSEEN_NUMBERS
from cmcr.demo.measure import retention_of, tasks_of
from cmcr.demo.world import EmbeddedCase, draw_world, embed_world
from cmcr.evaluation.ablations import over_seeds
from cmcr.evaluation.baselines import through
from cmcr.evaluation.metrics import PerQuery
from cmcr.evaluation.tasks.retrieval import PreparedRetrieval
from cmcr.evaluation.tasks.scores import PerItem
from tables import as_markdown, result_table, save

PLAIN = {"width": "{:,.0f}", "bytes": "{:,.0f}", "seconds": "{:,.1f}"}  # how a column without an interval is written
GAPS = [(0.0, "low", 48), (0.4, "high", 16), (0.7, "low", 16), (1.0, "high", 16), (1.1, "low", 48)]


def miniature(seeds: int, methods: list[str]) -> Iterator[tuple[str, str, int, dict[str, float]]]:
    """Give (connection, method, seed, figures) of the miniature world."""
    for seed in range(seeds):
        for data in embed_world(draw_world(seed, 6), lambda share: None):
            for method in methods:
                yield data.case.name, method, seed, _measured(data, method, seed)


def _measured(data: EmbeddedCase, method: str, seed: int) -> dict[str, float]:
    start = time.perf_counter()
    connection = cmcr.connect(*data.memories, overlap=data.case.overlap, method=method, seed=seed, device="cpu")
    seconds = time.perf_counter() - start
    left, right = data.outer
    scores = PreparedRetrieval(right, left, PerQuery.one(np.arange(1000))).score(through(connection))
    figures: dict[str, float] = {}
    for key in ("R@1", "R@5", "R@10", "mAP"):
        both = []
        for task in tasks_of(data):
            found = scores[f"{task}/{key}"]
            assert isinstance(found, PerItem)
            figures[f"{task}/{key}"] = 100 * found.value
            figures[f"{task}/unseen/{key}"] = 100 * float(found.values[UNSEEN_NUMBERS].mean())
            both.append(task)
        figures[key] = fmean(figures[f"{task}/{key}"] for task in both)
        figures[f"unseen {key}"] = fmean(figures[f"{task}/unseen/{key}"] for task in both)
    kept = retention_of(data, connection)
    figures["least retention"] = 100 * min(found["kept"] for found in kept.values())
    figures["width"], figures["seconds"] = connection.width, seconds
    figures["bytes"] = sum(t.nbytes for each in connection.projectors.values() for t in each.state_dict().values())
    return figures


def gaps(seeds: int, methods: list[str]) -> Iterator[tuple[str, str, int, dict[str, float]]]:
    """Give (world, method, seed, figures) of synthetic spaces whose modalities lie apart."""
    for gap, noise, latent in GAPS:
        for seed in range(seeds):
            world = worlds.gap(gap, noise, latent, seed)
            for method in methods:
                start = time.perf_counter()
                found = cmcr.connect(*world.memories, method=method, seed=seed, device="cpu")
                seconds = time.perf_counter() - start
                rows = [found.common(rows, space) for rows, space in zip(world.tests, ("left", "right"), strict=True)]
                figure = worlds.figure(world, found.similarity(rows[0], rows[1]))
                yield world.name, method, seed, {"R@1": figure, "seconds": seconds}


def main() -> None:
    """Measure and print a table; figures of every seed go to a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("worlds", choices=["miniature", "gaps"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=[m for m in METHODS if not m.startswith("c-mcr-published")])
    parser.add_argument("--out", type=Path, help="JSON of every figure and of the tables")
    given = parser.parse_args()
    cells: list[dict[str, Any]] = []
    for world, method, seed, figures in globals()[given.worlds](given.seeds, given.methods):
        cells.append({"world": world, "method": method, "seed": seed, **figures})
        print(world, method, seed, {k: round(v, 1) for k, v in figures.items() if "_to_" not in k}, file=sys.stderr)
        if given.out:
            save(given.out, given, tables(cells), cells=cells)
    for world, table in tables(cells).items():
        print(f"\n{world}\n\n{as_markdown(table)}")


def tables(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Make a table a world: means over seeds with their intervals, the best method first."""
    found = {}
    for world in dict.fromkeys(cell["world"] for cell in cells):
        ours = [cell for cell in cells if cell["world"] == world]
        keys = [key for key in ours[0] if key not in ("world", "method", "seed") and _shown_key(key)]
        rows: list[list[Any]] = []
        for method in dict.fromkeys(cell["method"] for cell in ours):
            of_method = [cell for cell in ours if cell["method"] == method]
            rows.append([method, *(_shown(key, [cell[key] for cell in of_method]) for key in keys)])
        rows.sort(key=lambda row: row[1 + keys.index("R@1")], reverse=True)
        several = len({cell["seed"] for cell in ours}) > 1
        columns = {key: _form(key, several) for key in keys}
        found[world.replace("-", "_").replace(" ", "_")] = result_table({"method": "{}", **columns}, rows)
    return found


def _shown_key(key: str) -> bool:
    """Whether a figure has a column: of the single directions only R@1."""
    return "_to_" not in key or (key.endswith("/R@1") and "unseen" not in key)


def _shown(key: str, values: list[float]) -> float | list[float]:
    found = over_seeds(values)
    mean, high = found["mean"], found["high"]
    assert mean is not None
    return mean if key in PLAIN or high is None else [mean, high - mean]


def _form(key: str, several: bool) -> str:
    return PLAIN.get(key, "{:.1f} ± {:.1f}" if several else "{:.1f}")


if __name__ == "__main__":
    main()

"""Every method beside every other: on the miniature connections over seeds, and on synthetic spaces over modality gaps.

    python benchmarks/methods.py miniature --out benchmarks/results/methods.json       # the tables of docs/methods.md,
    python benchmarks/methods.py gaps --seeds 1 --out benchmarks/results/gaps.json     # in all an hour of one core
    python benchmarks/methods.py own_blocks --out benchmarks/results/own_blocks.json

A seed draws items and everything that a method draws. Figures are means in percent with Student's t interval at 95 % over
seeds; a mean of two directions throughout, unless a direction is named. What is in `--out` already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

import cmcr
import worlds
from cmcr.connection.methods import METHODS
from cmcr.data.numbers import UNSEEN_NUMBERS
from cmcr.demo.measure import retention_of, tasks_of
from cmcr.evaluation.ablations import over_seeds
from cmcr.evaluation.baselines import through
from cmcr.evaluation.metrics import PerQuery
from cmcr.evaluation.tasks.retrieval import PreparedRetrieval
from cmcr.evaluation.tasks.scores import PerItem
from tables import as_markdown, result_table, save

Settings = dict[str, Any]
Figures = dict[str, float]
Key = tuple[str, str, str, int]  # table, row, connection, seed
Job = tuple[Key, Callable[[], Figures]]
Cells = dict[Key, Figures]

METHODS_SHOWN = [method for method in METHODS if not method.startswith("c-mcr-published")]
GAPS = [(0.0, "low", 48), (0.4, "high", 16), (0.7, "low", 16), (1.0, "high", 16), (1.1, "low", 48)]
GAP_METHODS: dict[str, Settings] = {
    **{name: {"method": name} for name in "ridge procrustes cca c-mcr-residual distilled c-mcr".split()},
    "c-mcr, not centred": {"method": "c-mcr", "centring": False},
    **{name: {"method": name} for name in ("concepts", "posterior")},
}
OWN_BLOCKS: dict[str, Settings] = {
    "whole": {},
    "own_width=64": {"own_width": 64},
    "own_width=32": {"own_width": 32},
    "own_width=16": {"own_width": 16},
    "own_share=0.9, whole": {"own_share": 0.9},
    "left out, own_share=0": {"own_share": 0.0},
}
PLAIN = {"width": "{:,.0f}", "bytes": "{:,.0f}", "seconds": "{:,.1f}"}  # how a column without an interval is written


def miniature(seeds: int) -> Iterator[Job]:
    """Give every method on both connections of the miniature world."""
    for seed, number in product(range(seeds), range(2)):
        for method in METHODS_SHOWN:
            name = ("audio_image", "3d_text")[number]
            yield (name, method, name, seed), partial(_connected, number, seed, method=method)


def own_blocks(seeds: int) -> Iterator[Job]:
    """Give own blocks of several widths, on both connections of the miniature world."""
    for seed, number, method in product(range(seeds), range(2), ("cca", "concepts")):
        for label, settings in OWN_BLOCKS.items():
            yield (method, label, str(number), seed), partial(_own_block, number, seed, method=method, **settings)


def gaps(seeds: int) -> Iterator[Job]:
    """Give methods on synthetic spaces whose modalities lie apart."""
    for (gap, noise, latent), seed in product(GAPS, range(seeds)):
        for label, settings in GAP_METHODS.items():
            key = ("gaps", f"{gap}, {noise} noise, {latent} wide", label, seed)
            yield key, partial(_across_a_gap, gap, noise, latent, seed, settings)


def _connected(number: int, seed: int, **settings: Any) -> Figures:
    data = worlds.embedded(seed)[number]
    start = time.perf_counter()
    connection = cmcr.connect(*data.memories, overlap=data.case.overlap, seed=seed, device="cpu", **settings)
    seconds = time.perf_counter() - start
    left, right = data.outer
    scores = PreparedRetrieval(right, left, PerQuery.one(np.arange(1000))).score(through(connection))
    figures: Figures = {}
    for key in ("R@1", "R@5", "R@10", "mAP"):
        both = {}
        for task in tasks_of(data):
            found = scores[f"{task}/{key}"]
            assert isinstance(found, PerItem)
            both[task] = 100 * found.value, 100 * float(found.values[UNSEEN_NUMBERS].mean())
        figures[key], figures[f"unseen {key}"] = (fmean(each) for each in zip(*both.values(), strict=True))
        if key == "R@1":
            figures |= {f"{task}/{key}": of_all for task, (of_all, _) in both.items()}
    figures["least retention"] = 100 * min(found["kept"] for found in retention_of(data, connection).values())
    figures["width"], figures["seconds"] = connection.width, seconds
    figures["bytes"] = sum(t.nbytes for each in connection.projectors.values() for t in each.state_dict().values())
    return figures


def _own_block(number: int, seed: int, **settings: Any) -> Figures:
    figures = _connected(number, seed, **settings)
    return {key: figures[key] for key in ("width", "least retention", "R@1")}


def _across_a_gap(gap: float, noise: str, latent: int, seed: int, settings: Settings) -> Figures:
    world = worlds.gap(gap, noise, latent, seed)
    found = cmcr.connect(*world.memories, seed=seed, device="cpu", **settings)
    left, right = (found.common(rows, space) for rows, space in zip(world.tests, ("left", "right"), strict=True))
    return {"R@1": worlds.figure(world, found.similarity(left, right))}


def tables(cells: Cells) -> dict[str, Any]:
    """Make the tables: one of figures for each connection or method; of gaps a single one, with a method a column."""
    found = {}
    for name in dict.fromkeys(key[0] for key in cells):
        ours = {key: figures for key, figures in cells.items() if key[0] == name}
        several = len({seed for *_, seed in ours}) > 1
        forms: dict[str, str] = {}
        rows: dict[str, dict[str, dict[int, list[float]]]] = {}
        for (_, row, tried, seed), figures in ours.items():
            for figure, value in figures.items():
                column = tried if name == "gaps" else figure
                forms[column] = _form(figure, several)
                rows.setdefault(row, {}).setdefault(column, {}).setdefault(seed, []).append(value)
        whole = {row: values for row, values in rows.items() if values.keys() == forms.keys()}  # a run may be stopped
        shown = [[row, *(_shown(column, values[column]) for column in forms)] for row, values in whole.items()]
        if "seconds" in forms:
            shown.sort(key=lambda cells: np.ravel(cells[1])[0], reverse=True)
        found[name] = result_table({"method" if "seconds" in forms else "variant": "{}", **forms}, shown)
    return found


def _shown(figure: str, by_seed: dict[int, list[float]]) -> float | list[float]:
    interval = over_seeds([fmean(values) for values in by_seed.values()])
    mean, high = interval["mean"], interval["high"]
    assert mean is not None
    return mean if figure in PLAIN or high is None else [mean, high - mean]


def _form(figure: str, several: bool) -> str:
    return PLAIN.get(figure, "{:.1f} ± {:.1f}" if several else "{:.1f}")


def _save(given: argparse.Namespace, cells: Cells) -> None:
    save(given.out, given, tables(cells), cells=[[*key, figures] for key, figures in cells.items()])


def main() -> None:
    """Measure what the out file lacks, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("worlds", choices=["miniature", "gaps", "own_blocks"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="JSON of every figure and of the tables")
    given = parser.parse_args()
    held = json.loads(given.out.read_text("utf-8"))["cells"] if given.out.exists() else []
    cells: Cells = {(*key[:3], key[3]): figures for *key, figures in held}
    for key, measure in {"miniature": miniature, "gaps": gaps, "own_blocks": own_blocks}[given.worlds](given.seeds):
        if key not in cells:
            cells[key] = measure()
            print(*key, {name: round(value, 1) for name, value in cells[key].items()}, file=sys.stderr, flush=True)
            _save(given, cells)
    _save(given, cells)
    for name, table in tables(cells).items():
        print(f"\n{name}\n\n{as_markdown(table)}")


if __name__ == "__main__":
    main()

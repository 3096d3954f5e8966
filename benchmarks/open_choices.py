"""Settle by experiment what the paper leaves open, and show what its ingredients are worth without and with a wide gap.

    python benchmarks/open_choices.py --seeds 1 2 3 --out benchmarks/results/open_choices.json    # an hour of one core

For several seeds, none of them the demonstration's 0 (each draws new items, a new initialisation and new noise), and both
connections of the demonstration: every combination of the open choices, single changes around the default, and the
ingredients once more with the modalities of each space moved 1.0 apart. What is in `--out` already is not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from cmcr.connection.connect import connect
from cmcr.demo.measure import measure as figures_of
from cmcr.demo.measure import retention_of, tasks_of
from cmcr.demo.world import CASES, WIDE_GAP, EmbeddedCase, draw_world, embed_world, gap_of, with_gap
from cmcr.evaluation.ablations import ABLATIONS
from cmcr.evaluation.baselines import through
from tables import as_markdown, result_table, save

Run = dict[str, Any]

OPEN: dict[str, dict[Any, str]] = {
    "normalize_consistency": {True: "mean made a unit row", False: "mean as it is"},
    "batch_norm": {"together": "modalities together", "apart": "modalities apart"},
    "intra_distance": {"euclidean": "distance", "squared": "squared distance"},
}
DEFAULT = "default"
INGREDIENTS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    # An ablation that is one of the combinations above is not measured twice.
    **{label: dict(change) for label, change in ABLATIONS.items() if not set(change) <= set(OPEN)},
    "λ = 1 instead of 0.1": {"intra_weight": 1.0},
    "λ = 10": {"intra_weight": 10.0},
    "rows centred": {"centring": True},
}
NUMBERS: dict[str, dict[str, Any]] = {
    "noise not rescaled with the width": {"rescale_noise": False},
    "τ2 = τ3 = 0.03": {"ttc_temperature": 0.03, "avc_temperature": 0.03},
    "τ2 = τ3 = 0.05": {"ttc_temperature": 0.05, "avc_temperature": 0.05},
    "τ2 = τ3 = 0.1": {"ttc_temperature": 0.1, "avc_temperature": 0.1},
    "τ1 = 0.03": {"consistency_temperature": 0.03},
    "projector of one layer and ReLU (published ULIP-CLIP)": {"hidden": (), "final_relu": True},
}


def combinations() -> dict[str, dict[str, Any]]:
    """Name every combination of the open choices; the first is the default."""
    found = {}
    for values in itertools.product(*OPEN.values()):
        settings = dict(zip(OPEN, values, strict=True))
        found["; ".join(OPEN[name][value] for name, value in settings.items())] = settings
    return {DEFAULT: {}, **dict(list(found.items())[1:])}


def wanted(seeds: list[int], parts: list[str]) -> Iterator[tuple[str, dict[str, Any], float, int]]:
    """Give (variant, settings, gap, seed), the most telling first; a gap of 0 leaves the spaces as they are."""
    tried = {"wide": (INGREDIENTS, WIDE_GAP), "ingredients": (INGREDIENTS, 0.0)}
    tried |= {"numbers": (NUMBERS, 0.0), "choices": (combinations(), 0.0)}
    for seed, part in itertools.product(seeds, parts):
        variants, gap = tried[part]
        yield from ((label, settings, gap, seed) for label, settings in variants.items())


def measure(data: EmbeddedCase, settings: dict[str, Any], seed: int) -> dict[str, float]:
    """Connect once; R@1 (mean of both directions, all and unseen numbers) and what the parents kept, in percent; gap left."""
    papers = {"centring": False, "own_share": 0.0, **settings}  # the form that the tables are of
    connection = connect(*data.memories, overlap=data.case.overlap, method="c-mcr", seed=seed, device="cpu", **papers)
    figures = figures_of(data, through(connection))
    retention = retention_of(data, connection)
    found = {
        name: float(np.mean([figures[f"{task}/{key}"] for task in tasks_of(data)]))
        for name, key in (("R@1", "R@1"), ("R@5", "R@5"), ("unseen R@1", "unseen/R@1"))
    }
    found["kept"] = 100 * float(np.mean([space["kept"] for space in retention.values()]))
    rows = [[connection.project(each.rows, each.space) for each in pair] for pair in data.own]
    found["gap left"] = float(np.mean([gap_of(*pair) for pair in rows]))
    return {name: round(value, 3) for name, value in found.items()}


def table(runs: list[Run], variants: Any, gap: float) -> dict[str, Any]:
    """Means over both connections, with the standard deviation over seeds where there are several."""
    spread, rows = ("R@1", "R@5", "unseen R@1", "kept"), []
    for label in variants:
        by_seed: dict[int, dict[str, Run]] = defaultdict(dict)
        for run in runs:
            if (run["variant"], run["gap"]) == (label, gap):
                by_seed[run["seed"]][run["case"]] = run
        pairs = [[found[case.name] for case in CASES] for found in by_seed.values() if len(found) == len(CASES)]
        if pairs:
            by_case = [fmean(run["R@1"] for run in each) for each in zip(*pairs, strict=True)]
            means = [[fmean(run[metric] for run in pair) for pair in pairs] for metric in spread]
            cells = [[fmean(each), *([stdev(each)] if len(each) > 1 else [])] for each in means]
            rows.append([label, *by_case, *cells, fmean(run["gap left"] for pair in pairs for run in pair)])
    several = all(len(row[3]) > 1 for row in rows)
    columns = {"variant": "{}", "audio-image R@1": "{:.1f}", "3d-text R@1": "{:.1f}"}
    columns |= {**dict.fromkeys(spread, "{:.1f} ± {:.1f}" if several else "{:.1f}"), "gap left": "{:.2f}"}
    return result_table(columns, rows)


def tables(runs: list[Run]) -> dict[str, Any]:
    """Make the tables of docs/open-choices.md."""
    found = {
        "choices": table(runs, combinations(), 0.0),
        "ingredients": table(runs, INGREDIENTS, 0.0),
        "wide_gap": table(runs, INGREDIENTS, WIDE_GAP),
        "numbers": table(runs, [DEFAULT, *NUMBERS], 0.0),
    }
    return {name: each for name, each in found.items() if len(each["rows"]) > 1}


def run_all(seeds: list[int], parts: list[str], runs: list[Run], keep: Callable[[], None]) -> None:
    """Train and measure what is not among the runs yet, calling `keep` after each."""
    done = {(run["variant"], run["gap"], run["seed"], run["case"]) for run in runs}
    for label, settings, gap, seed in wanted(seeds, parts):
        for number, case in enumerate(CASES):
            if (label, gap, seed, case.name) not in done:
                done.add((label, gap, seed, case.name))
                found = measure(_cases(seed, gap)[number], settings, seed)
                runs.append({"variant": label, "gap": gap, "seed": seed, "case": case.name, **found})
                print(json.dumps(runs[-1], ensure_ascii=False), file=sys.stderr, flush=True)
                keep()


@cache
def _cases(seed: int, gap: float) -> list[EmbeddedCase]:
    if gap:
        return [with_gap(data, gap) for data in _cases(seed, 0.0)]
    return embed_world(draw_world(seed, 6), lambda share: None)


def _keep(settings: argparse.Namespace, runs: list[Run]) -> None:
    save(settings.out, settings, tables(runs), runs=runs)


def main() -> None:
    """Run everything that is not measured yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    names = ["wide", "ingredients", "numbers", "choices"]
    parser.add_argument("--parts", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=Path, required=True, help="JSON of every run and of the tables")
    settings = parser.parse_args()
    runs = json.loads(settings.out.read_text("utf-8"))["runs"] if settings.out.exists() else []
    keep = partial(_keep, settings, runs)
    run_all(settings.seeds, settings.parts, runs, keep)
    keep()
    for found in tables(runs).values():
        print(as_markdown(found), end="\n\n")


if __name__ == "__main__":
    main()

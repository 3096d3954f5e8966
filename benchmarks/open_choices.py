"""Settle by experiment what the paper leaves open, and show what its stated numbers are worth here.

For several seeds, none of them the demonstration's 0 (each draws new items, a new initialisation and new noise), and both
connections of the demonstration, every combination of the open choices is trained and measured; then single changes
around the default. One JSON line per run, and at the end two Markdown tables of means over seeds, directions and connections.

    python benchmarks/open_choices.py --seeds 1 2 3 --out open-choices.jsonl
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from cmcr.connection.connect import connect
from cmcr.demo.measure import measure as figures_of
from cmcr.demo.measure import retention_of, tasks_of
from cmcr.demo.world import CASES, EmbeddedCase, draw_world, embed_world
from cmcr.evaluation.ablations import ABLATIONS
from cmcr.evaluation.baselines import through

OPEN: dict[str, tuple[Any, ...]] = {
    "normalize_consistency": (True, False),
    "batch_norm": ("together", "apart"),
    "intra_distance": ("euclidean", "squared"),
}
SINGLE: dict[str, dict[str, Any]] = {
    # An ablation that is one of the combinations above is not measured twice.
    **{label: dict(change) for label, change in ABLATIONS.items() if not set(change) <= set(OPEN)},
    "noise not rescaled with the width": {"rescale_noise": False},
    "lambda 1": {"intra_weight": 1.0},
    "tau_2 = tau_3 = 0.03": {"ttc_temperature": 0.03, "avc_temperature": 0.03},
    "tau_2 = tau_3 = 0.05": {"ttc_temperature": 0.05, "avc_temperature": 0.05},
    "tau_2 = tau_3 = 0.1": {"ttc_temperature": 0.1, "avc_temperature": 0.1},
    "tau_1 = 0.03": {"consistency_temperature": 0.03},
    "projector of one layer and ReLU (published ULIP-CLIP)": {"hidden": (), "final_relu": True},
}


def variants() -> dict[str, dict[str, Any]]:
    """Name every combination of the open choices, then every single change."""
    combinations = [dict(zip(OPEN, values, strict=True)) for values in itertools.product(*OPEN.values())]
    return {", ".join(f"{name}={value}" for name, value in one.items()): one for one in combinations} | SINGLE


def measure(data: EmbeddedCase, settings: dict[str, Any], seed: int) -> dict[str, float]:
    """Connect once; R@1 (mean of both directions, all and unseen numbers) and what the parents kept, in percent."""
    papers = {"centring": False, "own_share": 0.0, **settings}  # the form that the tables are of
    connection = connect(*data.memories, overlap=data.case.overlap, method="c-mcr", seed=seed, device="cpu", **papers)
    figures = figures_of(data, through(connection))
    retention = retention_of(data, connection)
    return {
        "R@1": float(np.mean([figures[f"{task}/R@1"] for task in tasks_of(data)])),
        "R@5": float(np.mean([figures[f"{task}/R@5"] for task in tasks_of(data)])),
        "unseen R@1": float(np.mean([figures[f"{task}/unseen/R@1"] for task in tasks_of(data)])),
        "kept": 100 * float(np.mean([space["kept"] for space in retention.values()])),
    }


def table(runs: list[dict[str, Any]], labels: list[str]) -> str:
    """Means over both connections, with the standard deviation over seeds."""
    metrics = ("R@1", "R@5", "unseen R@1", "kept")
    lines = ["| " + " | ".join(["variant", "audio-image R@1", "3d-text R@1", *metrics]) + " |", "|---|" + "---|" * 6]
    for label in labels:
        by_case: dict[str, list[float]] = defaultdict(list)
        by_seed: dict[int, list[dict[str, float]]] = defaultdict(list)
        for run in runs:
            if run["variant"] == label:
                by_case[run["case"]].append(run["R@1"])
                by_seed[run["seed"]].append(run)
        cells = [f"{np.mean(by_case[case]):.1f}" for case in ("audio-image", "3d-text")]
        for metric in metrics:
            means = [float(np.mean([run[metric] for run in seed_runs])) for seed_runs in by_seed.values()]
            cells.append(f"{np.mean(means):.1f} ± {np.std(means, ddof=1) if len(means) > 1 else 0:.1f}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run_all(seeds: list[int], names: list[str], out: Path) -> list[dict[str, Any]]:
    """Train and measure every variant for every seed, a line of JSON each."""
    runs: list[dict[str, Any]] = []
    with out.open("w", encoding="utf-8") as file:
        for seed in seeds:
            embedded = embed_world(draw_world(seed, 6), lambda share: None)
            cases = [data for data in embedded if data.case.name in names]
            for (label, settings), data in itertools.product(variants().items(), cases):
                runs.append({"variant": label, "seed": seed, "case": data.case.name, **measure(data, settings, seed)})
                print(json.dumps(runs[-1]), file=file, flush=True)
                print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    return runs


def main() -> None:
    """Run everything, or read earlier runs, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--cases", nargs="+", default=[case.name for case in CASES])
    parser.add_argument("--out", type=Path, default=Path("open-choices.jsonl"))
    parser.add_argument("--tables-of", type=Path, nargs="+", help="only print the tables of these earlier outputs")
    arguments = parser.parse_args()
    if arguments.tables_of:
        runs = [json.loads(line) for path in arguments.tables_of for line in path.read_text("utf-8").splitlines()]
    else:
        runs = run_all(arguments.seeds, arguments.cases, arguments.out)
    labels = list(variants())
    print(table(runs, labels[:8]), end="\n\n")
    print(table(runs, [labels[0], *SINGLE]))


if __name__ == "__main__":
    main()

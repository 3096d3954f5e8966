"""Does the choice without pairs rank connections as true pairs do, and does it choose the right one?

    python benchmarks/choice.py --out benchmarks/results/choice.json     # the table in docs/methods.md

Every candidate is weighed by `cmcr.connection.methods.auto.weighed`, which sees no pair, and the very maps that it weighed,
which were fitted on four fifths of the overlap, are measured by the true pairs: of two splits the mean. A world's seed draws
its items and all that is drawn in a fit. The order of the worlds rotates, so that a run that was stopped says something of
all; what the out file holds is not measured again, and `--minutes 0` only prints the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from scipy.stats import spearmanr

import worlds
from cmcr.connection.links import links_of
from cmcr.connection.methods import auto, concepts, linear, posterior
from cmcr.connection.methods.auto import Candidate
from cmcr.connection.methods.fitting import Fitted, Run
from cmcr.connection.settings import MethodSettings
from cmcr.evaluation.ablations import over_seeds
from tables import as_markdown, result_table, save

RIDGES = [Candidate(f"ridge {s:g}", linear.ridge, linear.RidgeSettings(strength=s)) for s in (0.1, 1.0, 10.0)]
PROCRUSTES = Candidate("procrustes", linear.procrustes, MethodSettings())
SOFT = Candidate("concepts at 0.05", concepts.fit, concepts.ConceptSettings(temperature=0.05))
OTHERS = [
    *RIDGES,
    PROCRUSTES,
    Candidate("posterior", posterior.fit, posterior.PosteriorSettings()),
    SOFT,
    auto.DISTILLED,
]
CLOSED_FORMS = [auto.CLOSED.name, PROCRUSTES.name, *(each.name for each in RIDGES)]


def all_worlds() -> Iterator[tuple[str, int, Callable[[], worlds.World]]]:
    """Give (name, seed, how to draw it): the miniature world first, then the others in rotating order."""
    for seed, number in product(range(5), range(2)):
        yield f"miniature {number}", seed, partial(worlds.miniature, number, seed)
    likes = [(draw, seed) for seed in range(3) for draw in (worlds.numbers, worlds.animals)]
    for at, (seed, noise, latent) in enumerate(product(range(2), ("high", "low"), (16, 48))):
        for draw, its_seed in likes[2 * at : 2 * at + 2]:
            yield draw.__name__, its_seed, partial(draw, its_seed)
        for apart in (1.0, 0.0, 1.1, 0.4):
            yield f"gap {(apart, noise, latent)}", seed, partial(worlds.gap, apart, noise, latent, seed)


def measured(world: worlds.World, seed: int) -> dict[str, Any]:
    """Weigh and measure all candidates in one world."""
    left, right = links_of(world.memories)[0].parents
    kept: dict[str, list[Fitted]] = {}

    def watched(candidate: Candidate) -> Candidate:
        def fit(*given: Any) -> Fitted:
            kept.setdefault(candidate.name, []).append(found := candidate.fit(*given))
            return found

        return candidate._replace(fit=fit)

    start = time.process_time()
    found = auto.weighed(left, right, map(watched, auto.CANDIDATES), auto.AutoSettings(), Run(seed))
    seconds = time.process_time() - start
    found |= auto.weighed(left, right, map(watched, OTHERS), auto.AutoSettings(), Run(seed))
    first, second = (torch.from_numpy(rows) for rows in world.tests)
    for name, fits in kept.items():
        with torch.no_grad():
            similar = [(each.left(first) @ each.right(second).T).numpy() for each in fits]
        found[name]["true"] = fmean(worlds.figure(world, each) for each in similar)
        if world.unseen is not None:
            found[name]["true unseen"] = fmean(worlds.figure(world, each, world.unseen) for each in similar)
    return {"world": world.name, "seconds": seconds, "found": found}


def judged(found: dict[str, dict[str, float]]) -> dict[str, float]:
    """Compare what the evidence says in one world with the true figures."""
    chosen = found[auto.chosen_of(found)]
    worth, true = ([each[key] for each in found.values()] for key in ("worth", "true"))
    figures = {
        "rank correlation": spearmanr(worth, true).statistic,
        "true figure of the chosen": chosen["true"],
        "of the best candidate": max(true),
        "of the best closed form": max(found[name]["true"] for name in CLOSED_FORMS),
    }
    if "true unseen" in chosen:
        figures["of unseen things: chosen"] = chosen["true unseen"]
        figures["best"] = max(each["true unseen"] for each in found.values())
    return figures


def tables(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Make the table: means over the seeds of a world, with Student's t interval at 95 %, and what was chosen how often."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in cells.values():
        groups.setdefault(cell["world"], []).append(cell)
    keys = list(dict.fromkeys(key for cell in cells.values() for key in judged(cell["found"])))
    rows = []
    for name, ours in groups.items():
        figures = [judged(cell["found"]) for cell in ours]
        chosen = Counter(auto.chosen_of(cell["found"]) for cell in ours)
        counts = ", ".join(
            f"`{each}`" + (f" {count} times" if count < len(ours) else "") for each, count in chosen.items()
        )
        shown = [_shown([each[key] for each in figures if key in each], key) for key in keys]
        rows.append([name, len(ours), counts, *shown, fmean(cell["seconds"] for cell in ours)])
    columns = {
        "world": "{}",
        "draws": "{}",
        "chosen": "{}",
        **dict.fromkeys(keys, "{}"),
        "choosing, seconds of a core": "{:.0f}",
    }
    return {"choice": result_table(columns, rows)}


def _shown(values: list[float], key: str) -> str:
    digits = 2 if key == "rank correlation" else 1
    found = over_seeds(values) if values else {"mean": None, "high": None}
    mean, high = found["mean"], found["high"]
    if mean is None:
        return ""
    return f"{mean:.{digits}f}" if high is None else f"{mean:.{digits}f} ± {high - mean:.{digits}f}"


def main() -> None:
    """Measure what the out file lacks, one world after another, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON; written after each world")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no world after so many")
    given = parser.parse_args()
    cells: dict[str, dict[str, Any]] = json.loads(given.out.read_text("utf-8"))["cells"] if given.out.exists() else {}
    start = time.monotonic()
    for name, seed, draw in all_worlds():
        if f"{name} seed {seed}" in cells or time.monotonic() > start + 60 * given.minutes:
            continue
        cell = cells[f"{name} seed {seed}"] = measured(draw(), seed)
        print(name, seed, auto.chosen_of(cell["found"]), judged(cell["found"]), file=sys.stderr, flush=True)
        save(given.out, given, tables(cells), cells=cells)
    print(as_markdown(tables(cells)["choice"]))


if __name__ == "__main__":
    main()

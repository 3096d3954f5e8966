"""Does the choice without pairs rank connections as true pairs do, and does it choose the right one?

    python benchmarks/choice.py --out choice.json         # the table in docs/methods.md

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
from cmcr.files import write_text_whole

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
    chosen = auto.chosen_of(found)
    worth, true = ([each[key] for each in found.values()] for key in ("worth", "true"))
    figures = {
        "rank correlation": spearmanr(worth, true).statistic,
        "true figure": found[chosen]["true"],
        "regret": max(true) - found[chosen]["true"],
        "regret, closed forms": max(found[name]["true"] for name in CLOSED_FORMS) - found[chosen]["true"],
    }
    if "true unseen" in found[chosen]:
        unseen = [each["true unseen"] for each in found.values()]
        figures |= {
            "unseen": found[chosen]["true unseen"],
            "regret, unseen": max(unseen) - found[chosen]["true unseen"],
        }
    return figures


def table(cells: list[dict[str, Any]]) -> str:
    """Write one line a kind of world as Markdown: means over its seeds with Student's t interval at 95 %, and the choices."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(cell["world"].split(",")[0], []).append(cell)
    keys = list(dict.fromkeys(key for cell in cells for key in judged(cell["found"])))
    lines = [f"| world | drawn | {' | '.join(keys)} | seconds | chosen |", "|---|" + "---|" * (len(keys) + 3)]
    for name, ours in groups.items():
        chosen = Counter(auto.chosen_of(cell["found"]) for cell in ours)
        shown = [_shown([judged(cell["found"])[key] for cell in ours if key in judged(cell["found"])]) for key in keys]
        seconds = fmean(cell["seconds"] for cell in ours)
        counts = ", ".join(f"{each} {count}" for each, count in chosen.items())
        lines.append(f"| {name} | {len(ours)} | {' | '.join(shown)} | {seconds:.0f} | {counts} |")
    return "\n".join(lines)


def _shown(values: list[float]) -> str:
    found = over_seeds(values) if values else {"mean": None, "high": None}
    mean, high = found["mean"], found["high"]
    return "" if mean is None else f"{mean:.2f}" if high is None else f"{mean:.2f} ± {high - mean:.2f}"


def main() -> None:
    """Measure what the out file lacks, one world after another, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON; written after each world")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no world after so many")
    given = parser.parse_args()
    cells: dict[str, dict[str, Any]] = json.loads(given.out.read_text()) if given.out.exists() else {}
    start = time.monotonic()
    for name, seed, draw in all_worlds():
        if f"{name} seed {seed}" in cells or time.monotonic() > start + 60 * given.minutes:
            continue
        cell = cells[f"{name} seed {seed}"] = measured(draw(), seed)
        print(name, seed, auto.chosen_of(cell["found"]), judged(cell["found"]), file=sys.stderr, flush=True)
        write_text_whole(given.out, json.dumps(cells, indent=1) + "\n")
    print(table(list(cells.values())))


if __name__ == "__main__":
    main()

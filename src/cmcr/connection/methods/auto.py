"""Choose a method without a single pair: closed form, trained, or concepts.

Each candidate is fitted without a fifth of the overlap, on two splits, and measured by what the held-out items say of both
memories (`evidence`). Its worth, against the closed form, is

    (class evidence / that of cca) x ((instance evidence + 2) / (that of cca + 2))^(1/4).

Concepts are taken if they are worth more than 1.2 times the closed form and 1.1 times the trained projectors; else
`distilled`, if the trained projectors are worth more than 1.08; else the closed form, which is the safe answer, and the only
one where the overlap has fewer than a hundred items. A mixture would only blur a clear answer.

The trained projectors that are weighed are `c-mcr-residual`, as which `distilled` begins: it costs less. Where they are
worth more than 1.08, distilled was never worse than they; where they are worth less, either can lose to the closed form.
Concepts keep the modality gap unless removing it is worth 1.3 times as much: without, they have collapsed then. Smaller
differences are not told reliably, and on real embeddings the gap of the means is partly content.

The margins and the power were settled on synthetic worlds (see docs/methods.md), never on pairs of real data.

Cost: the fits on a sample of 20,000 items, one training among them: 24 s on two cores. Prefer it unless you know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any, NamedTuple

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from cmcr.connection.maps import Map
from cmcr.connection.methods import cca, concepts, distilled, linear, residual
from cmcr.connection.methods.evidence import HELD_OUT, Evidence
from cmcr.connection.methods.fitting import Fitted, Parent, Run, drawn, some_rows
from cmcr.connection.settings import MethodSettings, Width
from cmcr.errors import TooFewRowsError

FEWEST = 100  # overlap items: of fewer, less than twenty would be held out
_SPLITS = 2
_INSTANCE = 0.25  # the weight of the instance evidence
_FEW = 2.0  # percent that keep a handful of hits from deciding
_OVER_CLOSED, _OVER_TRAINED, _REMOVED_WINS, _TRAINED_WINS = 1.2, 1.1, 1.3, 1.08


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class AutoSettings(MethodSettings):
    """Settings of the choice.

    Attributes:
        own_share, own_width: see `MethodSettings`.
        rows: items of the overlap and of each memory that the choice looks at; what is chosen is fitted on all.
    """

    rows: Width = 20_000


class Candidate(NamedTuple):
    """What may be chosen.

    Attributes:
        name: in the report.
        fit: as `Method.fit`.
        settings: of it.
        slow: trained, so that it is measured on one split only.
    """

    name: str
    fit: Callable[[Parent, Parent, Any, Run], Fitted]
    settings: Any
    slow: bool = False


CLOSED = Candidate("cca", cca.fit, cca.CorrelationSettings())
TRAINED = Candidate("c-mcr-residual", residual.fit, residual.ResidualSettings(), slow=True)
CONCEPTS = Candidate("concepts", concepts.fit, concepts.ConceptSettings())
CONCEPTS_WITH_GAP = Candidate("concepts, gap left in", concepts.fit, concepts.ConceptSettings(remove_gap=False))
DISTILLED = Candidate("distilled", distilled.fit, distilled.DistilledSettings(), slow=True)
CANDIDATES = (CLOSED, CONCEPTS, CONCEPTS_WITH_GAP, TRAINED)


def fit(left: Parent, right: Parent, settings: AutoSettings, run: Run) -> Fitted:
    """Choose a method and fit it on all rows."""
    report = choose(left, right, settings, run)
    chosen = candidate_of(report, settings)
    found = chosen.fit(left, right, chosen.settings, run)
    return replace(found, report={**found.report, "choice": report})


def into(base: Parent, leaf: Parent, settings: AutoSettings, run: Run) -> Map:
    """Carry a space into the coordinates of another, which stay as they are: by concepts if they are chosen, else by ridge."""
    chosen = choose(base, leaf, settings, run)["chosen"]
    for each in (CONCEPTS, CONCEPTS_WITH_GAP):
        if each.name == chosen:
            return concepts.into(base, leaf, each.settings, run)
    return linear.ridge_into(base, leaf, linear.RidgeSettings(), run)


def choose(left: Parent, right: Parent, settings: AutoSettings, run: Run) -> dict[str, Any]:
    """Choose one of the candidates, or keep to the choice that `run` brings.

    Returns:
        as JSON can hold it: "chosen", its name; "by", the name of the candidate whose evidence decided; "candidates", by name,
        with what `weighed` says of each; "held_out", how many overlap items that was measured on.
    """
    if run.choice is not None:
        return dict(run.choice)
    if min(settings.rows, len(left.overlap)) < FEWEST:
        return {"chosen": CLOSED.name, "by": CLOSED.name, "candidates": {}}
    found = weighed(left, right, CANDIDATES, settings, run)
    chosen = chosen_of(found)
    by = TRAINED.name if chosen == DISTILLED.name else chosen
    held_out = int(HELD_OUT * min(settings.rows, len(left.overlap)))
    return {"chosen": chosen, "by": by, "candidates": found, "held_out": held_out}


def candidate_of(report: Mapping[str, Any], settings: AutoSettings) -> Candidate:
    """Give the candidate that `choose` chose, its settings as asked for."""
    chosen = next(each for each in (*CANDIDATES, DISTILLED) if each.name == report["chosen"])
    kept = replace(chosen.settings, own_share=settings.own_share, own_width=settings.own_width)
    return chosen._replace(settings=kept)


def chosen_of(found: Mapping[str, Mapping[str, float]]) -> str:
    """Name the candidate to take, by what `weighed` says of each."""
    worth = {name: each["worth"] for name, each in found.items()}
    plain, removed, trained = worth[CONCEPTS_WITH_GAP.name], worth[CONCEPTS.name], worth[TRAINED.name]
    if max(plain, removed) > max(_OVER_CLOSED, _OVER_TRAINED * trained):
        best = CONCEPTS if removed > _REMOVED_WINS * plain else CONCEPTS_WITH_GAP
    else:
        best = DISTILLED if trained > _TRAINED_WINS else CLOSED
    return best.name


def weighed(
    left: Parent, right: Parent, candidates: Iterable[Candidate], settings: AutoSettings, run: Run
) -> dict[str, dict[str, float]]:
    """Weigh candidates by what held-out overlap items say of both memories.

    Returns:
        by name, means over the splits: "classes" and "instances", the evidences in percent, and "overlap", R@1 of the held-out
        items; those of the closed form on the same splits, "classes_beside" and so on; "worth", see above.

    Raises:
        TooFewRowsError: an overlap of fewer than `FEWEST` items.
    """
    parents = [sampled(parent, settings.rows, run.seed) for parent in (left, right)]
    if (items := len(parents[0].overlap)) < FEWEST:
        raise TooFewRowsError(f"expected at least {FEWEST} overlap items to weigh methods by, got {items}.")
    measured: dict[str, list[dict[str, float]]] = {}
    named = {each.name: each for each in (CLOSED, *candidates)}  # the closed form first, which all are compared with
    report = run.part("choosing without pairs")
    for split in range(_SPLITS):
        evidence = Evidence(parents[0], parents[1], run.seed + split)
        for number, candidate in enumerate(named.values()):
            if candidate.slow and split:
                continue
            quiet = Run(run.seed, run.device)
            found = candidate.fit(evidence.left, evidence.right, candidate.settings, quiet)
            seen = evidence.of(found.left.cpu(), found.right.cpu())
            figures = asdict(seen)
            beside = measured[CLOSED.name][split] if number else figures
            figures |= {f"{key}_beside": beside[key] for key in figures}
            measured.setdefault(candidate.name, []).append(figures)
            if report is not None:
                report((split + (number + 1) / len(named)) / _SPLITS)
    means = {name: {key: fmean(each[key] for each in parts) for key in parts[0]} for name, parts in measured.items()}
    return {name: {**each, "worth": _worth(each)} for name, each in means.items()}


def _worth(found: Mapping[str, float]) -> float:
    classes = found["classes"] / max(found["classes_beside"], 1e-9)
    return classes * ((found["instances"] + _FEW) / (found["instances_beside"] + _FEW)) ** _INSTANCE


def sampled(parent: Parent, rows: int, seed: int) -> Parent:
    """Draw rows of a parent into RAM; of the overlap the same items in both."""
    return Parent(*(some_rows(each, drawn(len(each), rows, seed)) for each in (parent.overlap, parent.outer)))

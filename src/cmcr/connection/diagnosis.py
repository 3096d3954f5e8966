"""Whether a connection can be trusted, from unpaired rows alone: numbers measured once by `connect`, read as findings.

`examine` looks at what is given before anything is fitted, `measure` at what came of it: both at samples of a few thousand
rows, of which plain numbers are kept, so a saved connection can be diagnosed without its memories. Every threshold lies
between what the good worlds and the spoiled ones of tests/connection/test_diagnosis.py show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cmcr.connection.connection import Connection
from cmcr.connection.maps import Centring
from cmcr.connection.methods.fitting import Parent, drawn, some_rows
from cmcr.connection.methods.linear import ridge_weight
from cmcr.engine.precision import guarded_torch_state

_OVERLAP_ROWS, _OUTER_ROWS, _QUERIES = 3000, 2000, 1000  # samples: a second or two, and figures to about a hundredth
_HELD_OUT = 5  # one overlap row in so many is held out
_FEWEST = 20  # rows, below which a share says nothing
_NEIGHBOURS = 10
_NEAR = 0.8  # of the cosine at which the other modality typically finds its best match
_POSTERIOR_TEMPERATURE = 0.02  # where the method has none of its own


@dataclass(frozen=True)
class Finding:
    """One check of a connection.

    Attributes:
        name: of the check.
        where: the spaces, or the space and modality, that it is about.
        value: what was measured.
        threshold: where it begins to matter.
        ok: whether the value is on the good side.
        message: the value in words, and why the threshold is where it is.
        advice: what to do where it is not ok.
    """

    name: str
    where: str
    value: float
    threshold: float
    ok: bool
    message: str
    advice: str


class _Check(NamedTuple):
    """How a number is read: `sign` 1 where it must reach the threshold, -1 where it must not pass it."""

    name: str
    sign: int
    threshold: float
    message: str
    advice: str


_ADVICE_CENTRING = "Use a method that centres: cca, c-mcr-residual, or C-MCR with its centring"
_CHECKS = {
    "agreement": _Check(
        "overlap agreement", 1, 0.9,
        "a held-out overlap item, carried from one space into the other, is nearer to itself than to {:.1%} of the others. "
        "Chance is 50 %; at 90 % a fifth of the rows may belong to other items (good overlaps: 99 %)",
        "Make sure that row i of the overlap is the same item in both spaces, and that both encoders know such items.",
    ),
    "rows_per_direction": _Check(
        "overlap size", 1, 10,
        "the overlap has {:.1f} different items for each direction in which it varies. A linear map from n items of d "
        "directions keeps d/n of their noise: a tenth at 10",
        "Embed more overlap items with both encoders, a few thousand that differ; no outer items are needed for them.",
    ),
    "named": _Check(
        "queries that the overlap names", 1, 0.6,
        "{:.0%} of the memory's items have an overlap item near: nearer than after a random rotation, and at 0.8 or more of "
        "the cosine that overlap items find. Good worlds have 90 % or more; an overlap of fifty items has under 50 %",
        "Add overlap items about what the memory shows, and check that both towers are of the same model.",
    ),
    "covered": _Check(
        "overlap that the memory covers", 1, 0.6,
        "{:.0%} of the overlap's items have a memory item near: nearer than after a random rotation, and at 0.8 or more of "
        "the cosine that memory items find. Good worlds have 90 % or more; a memory of a hundred items has under 40 %",
        "Add memory items of what the overlap is about, or leave out overlap items about other things.",
    ),
    "names": _Check(
        "flat posteriors", -1, 0.5,
        "the softmax over the overlap spreads over {:.1%} of its items. Above a half it tells next to nothing (good: 1 %)",
        "Lower the temperature, or take a method without posteriors, such as ridge.",
    ),
    "counterparts": _Check(
        "flat consistency", -1, 0.5,
        "the softmax over the memory spreads over {:.1%} of its items. Above a half every consistent row is nearly the "
        "memory's mean (good: 1 %)",
        "Lower consistency_temperature.",
    ),
    "variance": _Check(
        "constant tower", 1, 0.02,
        "the rows vary by {:.1%} of their squared length. Below 2 % they lie within about 8 degrees of one vector",
        "The tower gives nearly the same for every item: check its weights and its preprocessing.",
    ),
    "directions": _Check(
        "directions in use", 1, 3,
        "the rows vary in {:.1f} directions (participation ratio of the covariance). With fewer than 3 most items cannot be "
        "told apart; working towers have ten or more",
        "The tower is broken or its items are all alike: check its weights, its preprocessing and the items.",
    ),
    "shared": _Check(
        "shared component", -1, 0.95,
        "{:.0%} of every row is the same in all rows (the length of their mean). Above 95 % all cosines lie within a tenth; "
        "encoders have up to 90 %",
        f"{_ADVICE_CENTRING}, and look for a constant that was added to the rows.",
    ),
    "projected_shared": _Check(
        "shared component", -1, 0.9,
        "{:.0%} of every projected row is the same in all rows (the length of their mean). Above 90 % the scores across spaces "
        "lie in a band of a fifth; the published recipe has 77 % on the miniature world",
        f"{_ADVICE_CENTRING}.",
    ),
    "gap": _Check(
        "modality gap", -1, 0.75,
        "the means of the modalities lie {:.2f} apart, and the method does not centre them. C-MCR without centring loses half "
        "of its hits at 0.9, few at 0.4",
        f"{_ADVICE_CENTRING}.",
    ),
    "centred_gap": _Check(
        "modality gap", -1, 2.0, "the means of the modalities lie {:.2f} apart (2 is the most); the method centres them", ""
    ),
    "kept": _Check(
        "alignment that the parent keeps", 1, 0.6,
        "of the ten overlap items that are nearest to a memory item in the common space, {:.0%} are among the nearest in the "
        "space itself. A direct sum keeps 95 %, a common space alone 70 to 85 %; less costs the space its retrieval",
        "Keep the own blocks (own_share=0.98), or search within the space by its own embeddings.",
    ),
    "band": _Check(
        "band of scores", 1, 0.1,
        "the best score of a query stands {:.0%} of its height above the median. Below 10 % nearly all of every score says "
        "nothing of the item (good: 50 % or more)",
        f"{_ADVICE_CENTRING}. Until then do not compare scores with a threshold.",
    ),
    "hubs": _Check(
        "hubs", -1, 0.2,
        "{:.0%} of all answers come from the hundredth of the items that answers most (fair: 1 %). Above a fifth many queries "
        "get the same answers (good: 3 to 9 %)",
        f"Look at the items that answer most: empty or broken ones attract queries. {_ADVICE_CENTRING}.",
    ),
}  # fmt: skip


EXAMINED = frozenset({"agreement", "rows_per_direction", "named", "covered", "variance", "directions", "shared"})
"""The checks of `examine`."""


def examine(
    names: tuple[str, str], overlap: str, outers: tuple[str, str], parents: tuple[Parent, Parent], seed: int
) -> list[dict[str, Any]]:
    """Measure what two spaces give to a connection, before anything is fitted: samples of their unpaired rows.

    Args:
        names: of the left and the right space.
        overlap: the modality that they share.
        outers: of each space the other modality.
        parents: the rows of both.
        seed: which rows are looked at.

    Returns:
        measurements as JSON can hold them, for `Connection.report["measured"]`: each a "check", "where" and a "value". What
        too few rows cannot tell is left out.
    """
    with guarded_torch_state(torch.device("cpu")), torch.no_grad():
        overlaps, memories = samples(parents, seed)
        directions = max(_spread(rows)["directions"] for rows in overlaps)
        different = len(torch.unique(overlaps[0], dim=0)) / len(overlaps[0]) * len(parents[0].overlap)
        agreement = _agreement(overlaps[0], overlaps[1], seed)
        both = {"agreement": agreement, "rows_per_direction": different / max(directions, 1.0)}
        found = [(" and ".join(names), both)]
        for name, outer, texts, items in zip(names, outers, overlaps, memories, strict=True):
            found.append((f"{outer} and {overlap} of {name}", _subjects(texts, items, seed)))
            found.append((f"{overlap} of {name}", _spread(texts)))
            found.append((f"{outer} of {name}", _spread(items)))
        return _as_json(found)


def measure(
    connection: Connection, names: tuple[str, str], overlap: str, parents: tuple[Parent, Parent]
) -> list[dict[str, Any]]:
    """Measure what a connection makes of two of its spaces, on the same samples; arguments and result as of `examine`."""
    seed = connection.seed
    with guarded_torch_state(torch.device("cpu")), torch.no_grad():
        overlaps, outers = samples(parents, seed)
        common = [common_rows(connection, name, rows) for name, rows in zip(names, outers, strict=True)]
        found = []
        for one, other in ((0, 1), (1, 0)):
            found.append((f"{names[one]} to {names[other]}", _ranking(common[one], common[other])))
        for name, texts, items, projected in zip(names, overlaps, outers, common, strict=True):
            modalities = next(space.modalities for space in connection.spaces if space.name == name)
            outer = ", ".join(modality for modality in modalities if modality != overlap)
            found.append((f"{outer} and {overlap} of {name}", _within(connection, name, texts, items)))
            found.append((f"{outer} of {name}, projected", {"projected_shared": float(projected.mean(dim=0).norm())}))
        return _as_json(found)


def samples(parents: tuple[Parent, Parent], seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Draw rows of the overlap, the same of both spaces, and of the outer modalities, into RAM."""
    chosen = drawn(len(parents[0].overlap), _OVERLAP_ROWS, seed)
    outers = [some_rows(parent.outer, drawn(len(parent.outer), _OUTER_ROWS, seed)) for parent in parents]
    return [some_rows(parent.overlap, chosen) for parent in parents], outers


def _as_json(found: Iterable[tuple[str, Mapping[str, float]]]) -> list[dict[str, Any]]:
    return [
        {"check": check, "where": where, "value": round(value, 5)}
        for where, values in found
        for check, value in values.items()
        if math.isfinite(value)
    ]


def diagnose(connection: Connection) -> tuple[Finding, ...]:
    """Read what was measured of a connection (see `Connection.diagnose`)."""
    return findings(connection.report.get("measured", ()))


def findings(measured: Iterable[Mapping[str, Any]]) -> tuple[Finding, ...]:
    """Read what `examine` and `measure` have found: those that failed first."""
    found = []
    for given in measured:
        if (check := _CHECKS.get(given["check"])) is not None:
            value = float(given["value"])
            ok = check.sign * (value - check.threshold) >= 0
            message = f"{check.message.format(value)}."
            found.append(Finding(check.name, given["where"], value, check.threshold, ok, message, check.advice))
    return tuple(sorted(found, key=lambda finding: finding.ok))


def _spread(rows: Tensor) -> dict[str, float]:
    """Tell how far rows differ: the length of their mean, what is left, and in how many directions that lies."""
    mean = rows.mean(dim=0)
    covariance = (rows - mean).T @ (rows - mean) / len(rows)
    squares = float(covariance.square().sum())
    shared, variance = float(mean.square().sum()) ** 0.5, float(covariance.trace())
    return {"shared": shared, "variance": variance, "directions": variance**2 / squares if squares > 0 else 0.0}


def _agreement(left: Tensor, right: Tensor, seed: int) -> float:
    """Fit a centred ridge to most of the overlap; of the others, give the mean share of rows that are farther than the own."""
    held = min(_QUERIES, len(left) // _HELD_OUT)
    if held < _FEWEST // 2:
        return math.nan
    order = torch.randperm(len(left), generator=torch.Generator().manual_seed(seed))
    a, b = (_centred(rows, rows[order[held:]]) for rows in (left, right))
    test, rest = order[:held], order[held:]
    weight = ridge_weight((b[rest].T @ b[rest]).double(), (b[rest].T @ a[rest]).double(), 0.1).float()
    cosines = F.normalize(b[test] @ weight, dim=1) @ a[test].T
    return float((cosines < cosines.diagonal()[:, None]).sum()) / (held * (held - 1))


def _subjects(overlap: Tensor, outer: Tensor, seed: int) -> dict[str, float]:
    """Compare the two modalities of a space: do they speak about the same?"""
    # Each modality centred by its own mean: what is left does not know of the gap.
    t, x = _centred(overlap, overlap), _centred(outer, outer)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(t.shape[1], t.shape[1], generator=generator, dtype=t.dtype))[0]
    cosines, by_chance = x @ t.T, x @ rotation @ t.T
    named, covered = cosines.amax(dim=1), cosines.amax(dim=0)
    found = {}
    if len(outer) >= _FEWEST:
        found["named"] = _near(named, by_chance.amax(dim=1), covered)
    if len(overlap) >= _FEWEST:
        found["covered"] = _near(covered, by_chance.amax(dim=0), named)
    return found


def _within(connection: Connection, name: str, overlap: Tensor, outer: Tensor) -> dict[str, float]:
    """Compare the two modalities of a space, and what the connection makes of them."""
    parts = connection.projectors[name].modules()
    gap = "centred_gap" if any(isinstance(part, Centring) for part in parts) else "gap"
    found = {gap: float((overlap.mean(dim=0) - outer.mean(dim=0)).norm())}
    if min(len(overlap), len(outer)) < _FEWEST:
        return found
    settings, queries = connection.settings, outer[:_QUERIES]
    found["names"] = _width(queries @ overlap.T, getattr(settings, "temperature", _POSTERIOR_TEMPERATURE))
    if getattr(settings, "semantic_consistency", False):
        found["counterparts"] = _width(overlap[:_QUERIES] @ outer.T, settings.consistency_temperature)
    before = queries @ overlap.T
    after = connection.project(queries, name) @ connection.project(overlap, name).T
    tenth = before.topk(_NEIGHBOURS, dim=1).values[:, -1:]
    nearest = before.gather(1, after.topk(_NEIGHBOURS, dim=1).indices)
    found["kept"] = float((nearest >= tenth - 1e-5).float().mean())  # equal items may take each other's place
    return found


def _near(best: Tensor, by_chance: Tensor, of_the_other: Tensor) -> float:
    """Give the share of best cosines above what chance gives to one in twenty, and not far below the other direction's."""
    bound = torch.maximum(by_chance.quantile(0.95), _NEAR * of_the_other.median())
    return float((best > bound).float().mean())


def _width(cosines: Tensor, temperature: float) -> float:
    """Give the median share of the columns that a row's softmax spreads over, by its entropy: ``exp(H) / columns``."""
    logs = torch.log_softmax(cosines / temperature, dim=1)
    return float((-(logs.exp() * logs).sum(dim=1)).exp().median()) / cosines.shape[1]


def _ranking(queries: Tensor, corpus: Tensor) -> dict[str, float]:
    """Look at the scores across two spaces: do they tell items apart, and do few items answer all queries?"""
    if len(corpus) < _FEWEST:
        return {}
    scores = queries[:_QUERIES] @ corpus.T
    best, middle = scores.amax(dim=1), scores.median(dim=1).values
    answers = max(1, min(_NEIGHBOURS, len(corpus) // 100))
    counts = torch.bincount(scores.topk(answers, dim=1).indices.flatten(), minlength=len(corpus))
    most = counts.topk(math.ceil(len(corpus) / 100)).values.sum()
    return {
        "band": float(((best - middle) / best.abs().clamp_min(1e-12)).median()),
        "hubs": float(most) / float(counts.sum()),
    }


def common_rows(connection: Connection, name: str, rows: Tensor) -> Tensor:
    """Project rows into the common block without its slack, which no two spaces share: unit rows."""
    return F.normalize(connection.common(rows, name)[:, : connection.projectors[name].width], dim=1)


def _centred(rows: Tensor, by: Tensor) -> Tensor:
    return F.normalize(rows - by.mean(dim=0), dim=1)

"""Evaluate a connection on a task: embed the items once, score every method, give each figure its interval."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmcr._version import versions_here
from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.connection.settings import check_seed
from cmcr.errors import ConfigError, unknown_name
from cmcr.evaluation.baselines import Method, own_space, through
from cmcr.evaluation.datasets.records import (
    ClassificationRecord,
    CounterfactualRecord,
    LocalizationRecord,
    Record,
    RetrievalRecord,
)
from cmcr.evaluation.published import PUBLISHED
from cmcr.evaluation.results import EVALUATION, VERSION
from cmcr.evaluation.tasks import classification, counterfactual, localization, retrieval
from cmcr.evaluation.tasks.regions import Proposals
from cmcr.evaluation.tasks.scores import Scores, compared
from cmcr.progress import Progress

_RECORDS: Mapping[str, type[Record]] = {
    "retrieval": RetrievalRecord,
    "localization": LocalizationRecord,
    "counterfactual": CounterfactualRecord,
    "classification": ClassificationRecord,
    "retention": RetrievalRecord,
}
_AGREEMENT: Mapping[str, int] = {"localization/flickr-soundnet": 2}
"""Of data sets that several people annotated: a pixel counts in full where two of them agree (Senocak et al.)."""


def _ignored(stage: str, share: float) -> None:
    """Take progress and show nothing."""


Prepared = (
    retrieval.PreparedRetrieval
    | localization.PreparedLocalization
    | counterfactual.PreparedCounterfactual
    | classification.PreparedClassification
)
"""A data set, embedded; its `score` measures a method of comparing the modalities."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and what it takes to compare it with another connection.

    Attributes:
        result: as it is written to JSON.
        scores: of the connection itself, item by item.
        prepared: the data set, embedded.
    """

    result: Mapping[str, Any]
    scores: Scores = field(repr=False)
    prepared: Prepared = field(repr=False)


def evaluate(
    connection: Connection,
    run: str,
    record: Record,
    *,
    prompts: Sequence[Sequence[str]] | None = None,
    prompts_name: str | None = None,
    baselines: Mapping[str, Method] | None = None,
    against: Mapping[str, Connection] | None = None,
    proposals: Proposals | None = None,
    map_rule: str = "value",
    seed: int = 0,
    progress: Progress = _ignored,
) -> Evaluation:
    """Measure a connection on one data set.

    Args:
        connection: with its encoders attached.
        run: as TASK/DATASET; for a record of your own, DATASET may be any name.
        record: the data set.
        prompts: for classification, the prompts of every class; None takes cmcr's own.
        prompts_name: what they are called in the result, which stands beside quoted rows.
        baselines: measured beside it, by name (see `cmcr.evaluation.baselines`); chance always is.
        against: other connections of the same spaces, by name, to be compared on the same items.
        proposals: for localization, gives the boxes to choose from; None takes a grid.
        map_rule: for localization, how a map is cut: "value" or "share", see
            `cmcr.evaluation.localization.predicted_region`.
        seed: of the bootstrap and of chance.
        progress: see `cmcr.progress.Progress`.

    Raises:
        ConfigError: an unknown task, a record that is not of its kind, a connection without the modalities, or others
            that cannot be compared with it.
    """
    seed = check_seed(seed)
    beside: dict[str, Method] = {"own space": own_space} if run.startswith("retention/") else {}
    beside |= baselines or {}
    for name, other in (against or {}).items():
        if name in ("connection", "chance", *beside):
            raise ConfigError(f"against: {name!r} is taken: give the other connection another name, or its whole path.")
        _check_comparable(connection, other, name)
    prepared = prepare(
        connection, run, record, prompts=prompts, proposals=proposals, map_rule=map_rule, progress=progress
    )
    scores = {"connection": prepared.score(through(connection)), "chance": prepared.chance(seed)}
    for name, method in beside.items():
        progress(f"scoring {name}", 1.0)
        scores[name] = prepared.score(method)
    for name, other in (against or {}).items():
        scores[name] = prepared.score(through(other))
    ours = scores["connection"]
    result = {
        "format": EVALUATION,
        "version": VERSION,
        "run": run,
        "connection": facts_of(connection),
        "data": {
            "name": record.name,
            "sha256": record.content_hash,
            "left_out": record.left_out,
            "failed": prepared.failed,
            **_prompts_of(prepared, prompts_name or ("given" if prompts else "cmcr's own")),
        },
        "seed": seed,
        "figures": {
            name: {key: score.figure(seed) for key, score in of_method.items()} for name, of_method in scores.items()
        },
        "connection_minus": {
            name: {key: gap._asdict() for key, gap in compared(ours, scores[name], seed).items()}
            for name in against or {}
        },
        "kept": {key: ours[key].value / own.value for key, own in scores.get("own space", {}).items() if own.value > 0},
        "published_in_percent": [dict(row, quoted=True) for row in PUBLISHED.get(run, ())],
        "versions": versions_here(),
    }
    return Evaluation(result, ours, prepared)


def prepare(
    connection: Connection,
    run: str,
    record: Record,
    *,
    prompts: Sequence[Sequence[str]] | None = None,
    proposals: Proposals | None = None,
    map_rule: str = "value",
    progress: Progress = _ignored,
) -> Prepared:
    """Embed a data set for the task of a run; arguments and errors as of `evaluate`."""
    task = run.split("/", 1)[0]
    if task not in _RECORDS:
        raise unknown_name("task", task, _RECORDS)
    if not isinstance(record, _RECORDS[task]):
        raise ConfigError(f"{run}: expected a {_RECORDS[task].__name__}, got a {type(record).__name__}.")
    if isinstance(record, LocalizationRecord):
        return localization.prepare(connection, record, progress, proposals, _AGREEMENT.get(run, 1), map_rule)
    if isinstance(record, CounterfactualRecord):
        return counterfactual.prepare(connection, record, progress)
    if isinstance(record, ClassificationRecord):
        return classification.prepare(connection, record, progress, prompts)
    return retrieval.prepare(connection, record, progress, within=task == "retention")


def _prompts_of(prepared: Prepared, name: str) -> dict[str, str]:
    """Say with which prompts classes were described: figures reached with others are not comparable to a point."""
    if not isinstance(prepared, classification.PreparedClassification):
        return {}
    few, many = int(prepared.counts.min()), int(prepared.counts.max())
    return {"prompts": f"{name}, {few} a class" if few == many else f"{name}, {few} to {many} a class"}


def facts_of(connection: Connection) -> dict[str, Any]:
    """Identify the connection that was measured: its spaces, their models, and a hash of its weights."""
    weights = hashlib.sha256()
    for known in connection.spaces:
        for name, tensor in sorted(connection.projectors[known.name].state_dict().items()):
            weights.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return {
        "method": connection.method,
        "seed": connection.seed,
        "overlap": connection.overlap,
        "overlap_rows": connection.overlap_rows,
        "width": connection.width,
        "weights_sha256": weights.hexdigest(),
        "spaces": [_space_facts(connection, known) for known in connection.spaces],
    }


def _space_facts(connection: Connection, known: ConnectedSpace) -> dict[str, Any]:
    encoder = connection.encoders.get(known.name)
    source = getattr(encoder, "source", None)
    return {
        "name": known.name,
        "fingerprint": getattr(encoder, "fingerprint", known.fingerprint),
        # Of a model in a folder its name alone: where it lies is not part of the result.
        "model": None if source is None else Path(source).name if Path(source).exists() else str(source),
        "revision": getattr(encoder, "revision", None),
    }


def _check_comparable(connection: Connection, other: Connection, name: str) -> None:
    """Make sure that items embedded with the encoders of one connection can be scored by another."""
    ours, theirs = (
        {(known.name, known.width, known.fingerprint) for known in each.spaces} for each in (connection, other)
    )
    if ours != theirs:
        raise ConfigError(
            f"{name}: expected a connection of the same encoders, {sorted(ours)}, got {sorted(theirs)}. Evaluate it alone."
        )

"""Evaluate a connection on a task: embed the items once, score every way to compare them, say how sure each figure is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.connection.settings import check_seed
from cmcr.errors import ConfigError, unknown_name
from cmcr.evaluation.datasets.records import (
    ClassificationRecord,
    CounterfactualRecord,
    LocalizationRecord,
    RetrievalRecord,
)
from cmcr.evaluation.miniature import MINI_RECORDS, Record, mini_prompts, mini_record
from cmcr.evaluation.published import PUBLISHED
from cmcr.evaluation.tasks.embedding import Progress
from cmcr.evaluation.tasks.grounded import GroundedRules, GroundedTask
from cmcr.evaluation.tasks.judged import JudgedTask
from cmcr.evaluation.tasks.labelled import LabelledTask
from cmcr.evaluation.tasks.pairs import PairsTask
from cmcr.evaluation.tasks.proposals import GridProposals, Proposals
from cmcr.evaluation.tasks.scores import Scores, compared, figures
from cmcr.evaluation.tasks.ways import Chance, OwnSpace, ThroughConnection, Way
from cmcr.memories.layout import versions_here

FORMAT = "cmcr evaluation"
VERSION = 1

DATASETS: Mapping[str, tuple[str, ...]] = {
    "retrieval": ("ave", "flickr-soundnet", "vgg-ss"),
    "localization": ("vgg-ss", "flickr-soundnet", "music-solo"),
    "counterfactual": ("ex-vgg-ss", "ex-flickrnet"),
    "classification": ("modelnet40", "scanobjectnn", "objaverse-lvis", "esc-50", "imagenet"),
    "retention": ("coco", "flickr30k", "audiocaps", "clotho"),
}
"""The published data sets of every task."""

READERS: Mapping[str, str] = {
    "localization/vgg-ss": "vgg-ss-boxes",
    "localization/flickr-soundnet": "flickr-soundnet-boxes",
}
"""How a data set is read for a run, where that is not by its own name."""

RUNS: tuple[str, ...] = (
    *(f"{task}/{name}" for task, names in DATASETS.items() for name in names),
    *MINI_RECORDS,
)
"""Everything that can be evaluated, as TASK/DATASET."""


_RULES: Mapping[str, GroundedRules] = {"localization/flickr-soundnet": GroundedRules(agreement=2)}
"""Of data sets that several people annotated: a pixel counts in full where two of them agree (Senocak et al.)."""


class Prepared(Protocol):
    """A data set, embedded."""

    @property
    def failed(self) -> int:
        """Items that could not be embedded."""
        ...

    def score(self, way: Way) -> Scores:
        """Score a way to compare the modalities."""
        ...


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
    ways: Sequence[Way] = (),
    against: Mapping[str, Connection] | None = None,
    proposals: Proposals | None = None,
    map_rule: str = "value",
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a connection on one data set.

    Args:
        connection: with its encoders attached.
        run: as TASK/DATASET, one of `RUNS`, or any name for a record of your own whose task is one of `DATASETS`.
        record: the data set.
        prompts: for classification, the prompts of every class; None takes cmcr's own.
        ways: baselines to stand beside (see `cmcr.evaluation.tasks.ways.baselines`); chance always does.
        against: other connections of the same spaces, by name, to be compared on the same items.
        proposals: for localization, boxes to choose from; None takes a grid.
        map_rule: for localization, how a map is cut: "value" or "share", see
            `cmcr.evaluation.localization.predicted_region`.
        seed: of the bootstrap and of chance.
        progress: see `cmcr.evaluation.tasks.embedding.Progress`.

    Raises:
        ConfigError: an unknown task, a record that is not of its kind, a connection without the modalities, or others
            that cannot be compared with it.
    """
    seed = check_seed(seed)
    task = run.split("/", 1)[0]
    if task not in DATASETS:
        raise unknown_name("task", task, DATASETS)
    tell = progress or (lambda what, share: None)
    through = ThroughConnection(connection)
    beside: list[Way] = [Chance(seed), *([OwnSpace()] if task == "retention" else []), *ways]
    for name, other in (against or {}).items():
        _check_name(name, [through.name, *(way.name for way in beside)])
        _check_same_spaces(connection, other, name)
    prepared = _prepare(connection, run, _task_of(run, prompts, proposals, map_rule), record, tell)
    scores = prepared.score(through)
    measured = {through.name: figures(scores, seed)}
    for way in beside:
        tell(f"scoring {way.name}", 1.0)
        measured[way.name] = figures(prepared.score(way), seed)
    others = {}
    for name, other in (against or {}).items():
        theirs = prepared.score(ThroughConnection(other))
        measured[name] = figures(theirs, seed)
        others[name] = {key: difference._asdict() for key, difference in compared(scores, theirs, seed).items()}
    result = {
        "format": FORMAT,
        "version": VERSION,
        "run": run,
        "connection": facts_of(connection),
        "data": {
            "name": record.name,
            "sha256": record.content_hash,
            "left_out": record.left_out,
            "failed": prepared.failed,
        },
        "seed": seed,
        "figures": measured,
        "connection_minus": others,
        "kept": _kept(measured) if task == "retention" else {},
        "published_in_percent": [dict(row, quoted=True) for row in PUBLISHED.get(run, ())],
        "versions": versions_here(),
    }
    return Evaluation(result, scores, prepared)


def evaluate_miniature(
    connection: Connection, run: str, *, seed: int = 0, items: int | None = None, **options: Any
) -> Evaluation:
    """Measure a connection on a data set of the miniature world.

    Args:
        connection: with its encoders attached.
        run: one of `cmcr.evaluation.miniature.MINI_RECORDS`.
        seed: of the data, the bootstrap and chance.
        items: how many; None takes all.
        **options: as of `evaluate`.

    Raises:
        ConfigError: an unknown run, or a connection without its modalities.
    """
    record = mini_record(run, check_seed(seed), items)
    prompts = mini_prompts(record.classes) if isinstance(record, ClassificationRecord) else None
    return evaluate(connection, run, record, prompts=prompts, seed=seed, **options)


def facts_of(connection: Connection) -> dict[str, Any]:
    """Say which connection was measured: its spaces, their models, and a hash of its weights."""
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
        "model": None if source is None else Path(source).name if Path(source).exists() else str(source),
        "revision": getattr(encoder, "revision", None),
    }


def _task_of(
    run: str, prompts: Sequence[Sequence[str]] | None, proposals: Proposals | None, map_rule: str
) -> tuple[type, Any]:
    """Choose the kind of record that a run needs, and its task."""
    rules = replace(_RULES.get(run, GroundedRules()), rule=map_rule)
    made: Mapping[str, tuple[type, Any]] = {
        "retrieval": (RetrievalRecord, PairsTask(run)),
        "retention": (RetrievalRecord, PairsTask(run, within=True)),
        "classification": (ClassificationRecord, LabelledTask(run, prompts)),
        "counterfactual": (CounterfactualRecord, JudgedTask(run)),
        "localization": (LocalizationRecord, GroundedTask(run, proposals=proposals or GridProposals(), rules=rules)),
    }
    return made[run.split("/", 1)[0]]


def _prepare(connection: Connection, run: str, task: tuple[type, Any], record: Record, progress: Progress) -> Prepared:
    kind, chosen = task
    if not isinstance(record, kind):
        raise ConfigError(f"{run}: expected a record of kind {kind.__name__}, got {type(record).__name__}.")
    prepared: Prepared = chosen.prepare(connection, record, progress)
    return prepared


def _kept(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Say which share of its own figures a space keeps."""
    before, after = measured[OwnSpace().name], measured["connection"]
    return {key: after[key]["value"] / before[key]["value"] for key in before if before[key]["value"] > 0}


def _check_name(name: str, taken: Sequence[str]) -> None:
    """Make sure that the figures of another connection do not take the place of others."""
    if name in taken:
        raise ConfigError(
            f"against: the name {name!r} is taken; call the other connection otherwise (a folder: by its absolute path)."
        )


def _check_same_spaces(connection: Connection, other: Connection, name: str) -> None:
    ours = [(known.name, known.width, known.fingerprint) for known in connection.spaces]
    theirs = [(known.name, known.width, known.fingerprint) for known in other.spaces]
    if sorted(ours, key=str) != sorted(theirs, key=str):
        raise ConfigError(
            f"{name}: connects other encoders ({', '.join(known.name for known in other.spaces)}) than the connection it is "
            f"to be compared with ({', '.join(known.name for known in connection.spaces)}): items cannot be embedded once "
            "for both. Evaluate them one by one."
        )

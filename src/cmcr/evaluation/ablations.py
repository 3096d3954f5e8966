"""What each ingredient of the method is worth: off in turn, over seeds of training, on one data set."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cmcr.connection.ablations import ABLATIONS, FULL
from cmcr.connection.connect import Counterparts, connect
from cmcr.connection.connection import Connection
from cmcr.connection.settings import check_seed, settings_of
from cmcr.errors import ConfigError, FormatError, ResumeError, unknown_name
from cmcr.evaluation.evaluate import Prepared, evaluate
from cmcr.evaluation.miniature import Record
from cmcr.evaluation.over_seeds import over_seeds
from cmcr.evaluation.tasks.scores import MeanOfTwo, OfAll, PerItem, Scores
from cmcr.evaluation.tasks.ways import ThroughConnection
from cmcr.files import MANIFEST, write_text_whole
from cmcr.memories.layout import versions_here
from cmcr.memories.memory import Memory
from cmcr.spaces.protocol import Space

FORMAT = "cmcr ablations"
VERSION = 1

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class AblationPlan:
    """What shall be measured.

    Attributes:
        run: as TASK/DATASET.
        seeds: of the trainings.
        only: names of ablations; empty for all. The full method is always measured.
        method: the full method.
        settings: changes to its settings.
        overlap: the shared modality; None where there is only one.
        data_seed: of chance and intervals, which are not reported, and of miniature data.
    """

    run: str
    seeds: Sequence[int] = (0, 1, 2)
    only: Sequence[str] = ()
    method: str = "c-mcr"
    settings: Mapping[str, Any] = field(default_factory=dict)
    overlap: str | None = None
    data_seed: int = 0

    def changes(self) -> dict[str, dict[str, Any]]:
        """Give the settings of the full method and of each ablation, by name.

        Raises:
            ConfigError: unknown names or settings, no or repeated seeds.
        """
        for name in self.only:
            if name not in ABLATIONS:
                raise unknown_name("ablation", name, ABLATIONS)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds: expected different whole numbers, at least one, got {list(self.seeds)}.")
        for seed in self.seeds:
            check_seed(seed)
        chosen = {FULL: {}, **{name: dict(ABLATIONS[name]) for name in ABLATIONS if not self.only or name in self.only}}
        found = {name: {**self.settings, **change} for name, change in chosen.items()}
        for changes in found.values():
            settings_of(self.method, **changes)
        return found


def ablate(
    memories: Sequence[Memory],
    plan: AblationPlan,
    record: Record,
    encoders: Sequence[Space],
    *,
    prompts: Sequence[Sequence[str]] | None = None,
    out: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train once for each ablation and seed, and measure all connections on the same embedded items.

    The data set is embedded once, and each semantic consistency computed once for all trainings that share it.

    Args:
        memories: four, as `cmcr.connect` takes them.
        plan: what to measure.
        record: the data set (see `cmcr.evaluation.reading.record_of`).
        encoders: of both spaces.
        prompts: for classification; None takes cmcr's own.
        out: JSON file, written whole after each training: what it holds already is not measured again.
        device: where to train.
        progress: called with what is being done and the share of all trainings that is done.

    Returns:
        what the file holds: "cells", a training each, and "summary": by ablation and figure the mean over seeds with its t
        interval, and the difference to the full method, paired by seed, with its own.

    Raises:
        ConfigError: unknown names, encoders that did not make the memories.
        ResumeError: the file holds measurements of something else; the message says what differs.
    """
    changes = plan.changes()
    tell = progress or (lambda what, share: None)
    made_from = _made_from(memories, plan, record)
    cells = _finished(out, made_from)
    todo = [(name, seed) for seed in plan.seeds for name in changes if _cell(cells, name, seed) is None]
    counterparts: Counterparts = {}
    prepared: Prepared | None = None
    for done, (name, seed) in enumerate(todo):
        tell(f"{name}, seed {seed}", done / len(todo))
        start = time.perf_counter()
        connection = connect(
            *memories,
            overlap=plan.overlap,
            method=plan.method,
            seed=seed,
            device=device,
            counterparts=counterparts,
            **changes[name],
        )
        connection = _with_encoders(connection, encoders)
        if prepared is None:
            prepared = evaluate(connection, plan.run, record, prompts=prompts, seed=plan.data_seed).prepared
        figures = _figures(prepared.score(ThroughConnection(connection)))
        seconds = round(time.perf_counter() - start, 2)
        cells.append({"ablation": name, "seed": int(seed), "figures": figures, "seconds": seconds})
        if out is not None:
            write_text_whole(out, json.dumps(_content(made_from, plan, cells), indent=2) + "\n")
    tell("ablations", 1.0)
    return _content(made_from, plan, cells)


def summary(cells: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Give every figure of every ablation over the seeds, and its difference to the full method, paired by seed."""
    found: dict[str, dict[str, Any]] = {}
    for name in (FULL, *ABLATIONS):
        measured = {cell["seed"]: cell["figures"] for cell in cells if cell["ablation"] == name}
        full = {cell["seed"]: cell["figures"] for cell in cells if cell["ablation"] == FULL}
        given = [seed for seed in seeds if seed in measured]
        both = [seed for seed in given if seed in full]
        if given:
            found[name] = {
                key: {
                    **over_seeds([measured[seed][key] for seed in given]),
                    "minus_full": over_seeds([measured[seed][key] - full[seed][key] for seed in both])
                    if both and name != FULL
                    else None,
                }
                for key in measured[given[0]]
            }
    return found


def _figures(scores: Scores) -> dict[str, float]:
    return {key: _value(score) for key, score in scores.items()}


def _value(score: PerItem | OfAll | MeanOfTwo) -> float:
    """Take a figure without its interval over items, which takes most of the time."""
    if isinstance(score, PerItem):
        return float(score.values.mean())
    if isinstance(score, OfAll):
        return float(score.of(np.arange(len(score.labels))))
    return float(score.first.mean() + score.second.mean()) / 2


def _with_encoders(connection: Connection, encoders: Sequence[Space]) -> Connection:
    """Attach the encoders, after making sure that they made the memories."""
    by_name = {encoder.name: encoder for encoder in encoders}
    for known in connection.spaces:
        encoder = by_name.get(known.name)
        if encoder is None:
            raise ConfigError(
                f"the encoders of space {known.name!r} are needed to embed the data set, and were not given."
            )
        if known.fingerprint is not None and known.fingerprint != encoder.fingerprint:
            raise ConfigError(
                f"space {known.name!r}: its memories are of the encoders {known.fingerprint}, those given are "
                f"{encoder.fingerprint}: another model, revision or preprocessing."
            )
    return dataclasses.replace(connection, encoders={known.name: by_name[known.name] for known in connection.spaces})


def _made_from(memories: Sequence[Memory], plan: AblationPlan, record: Record) -> dict[str, Any]:
    """Say what all cells share; cells of anything else are never mixed with them."""
    folders = sorted(
        (memory.space, memory.modality, str(i), f) for memory in memories for i, f in enumerate(memory.folders)
    )
    return {
        "run": plan.run,
        "data": {"name": record.name, "sha256": record.content_hash},
        "method": plan.method,
        "settings": json.loads(json.dumps(asdict(settings_of(plan.method, **plan.settings)))),
        "overlap": plan.overlap,
        "memories": [
            [space, modality, hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()]
            for space, modality, _, folder in folders
        ],
        "versions": versions_here(),
    }


def _finished(out: Path | None, made_from: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read the cells that are measured already."""
    if out is None or not out.exists():
        return []
    try:
        content = json.loads(out.read_text(encoding="utf-8"))
        known = content["format"], content["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{out}: not {FORMAT} ({error}). Choose another file.") from error
    if known != (FORMAT, VERSION):
        raise FormatError(f"{out}: expected {FORMAT} of version {VERSION}, got {known}. Choose another file.")
    differing = [key for key in made_from if content["made_from"].get(key) != made_from[key]]
    if differing:
        raise ResumeError(
            f"{out}: measured with something else: {', '.join(differing)}. Choose another file, or remove it."
        )
    cells: list[dict[str, Any]] = content["cells"]
    return cells


def _cell(cells: Sequence[Mapping[str, Any]], name: str, seed: int) -> Mapping[str, Any] | None:
    return next((cell for cell in cells if cell["ablation"] == name and cell["seed"] == seed), None)


def _content(made_from: Mapping[str, Any], plan: AblationPlan, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_from": made_from,
        "seeds": [int(seed) for seed in plan.seeds],
        "summary": summary(cells, plan.seeds),
        "cells": list(cells),
    }

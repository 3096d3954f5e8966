"""What each ingredient of the method is worth: off in turn, over seeds of training, on one data set."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats takes a second to import
from torch import Tensor

from cmcr._version import versions_here
from cmcr.connection.connect import connect
from cmcr.connection.connection import Connection
from cmcr.connection.links import links_of
from cmcr.connection.methods import settings_of
from cmcr.connection.methods.c_mcr import enhance
from cmcr.connection.settings import Settings, check_seed
from cmcr.engine.device import choose_device
from cmcr.errors import ConfigError, FormatError, IntegrityError, ResumeError, unknown_name
from cmcr.evaluation.baselines import through
from cmcr.evaluation.datasets.records import Record
from cmcr.evaluation.evaluate import Prepared, prepare
from cmcr.evaluation.results import ABLATIONS_FORMAT, VERSION, read_result
from cmcr.files import write_signed
from cmcr.memories.memories import Memories, by_space
from cmcr.memories.memory import Memory
from cmcr.progress import Progress
from cmcr.spaces.protocol import Space

FULL = "full method"
"""What every ablation is compared with."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "no semantic consistency": {"semantic_consistency": False},
    "no noise (semantic completion off)": {"noise_variance": 0.0},
    "only L_ttc": {"avc_weight": 0.0},
    "only L_avc": {"ttc_weight": 0.0},
    "no L_intra": {"intra_weight": 0.0},
    "consistent rows not made unit rows": {"normalize_consistency": False},
    "L_ttc alone, nothing else": {
        "semantic_consistency": False,
        "noise_variance": 0.0,
        "avc_weight": 0.0,
        "intra_weight": 0.0,
    },
}
"""What each ablation changes in the settings: one ingredient off at a time, and at last all of them."""

_CONSISTENCY_SETTINGS = ("semantic_consistency", "consistency_temperature", "normalize_consistency", "precision")


def over_seeds(values: Sequence[float]) -> dict[str, float | None]:
    """Give the mean of one value a seed with Student's t interval at 95 %, ``mean ± t * s / sqrt(n)``, s with n - 1.

    Unlike a bootstrap of three or five values it keeps its level where values are roughly normal, and so it is wide for two
    seeds (t = 12.7) and three (4.3). A single seed has no interval: `low` and `high` are None.
    """
    mean, seeds = float(np.mean(values)), len(values)
    if seeds == 1:
        return {"mean": mean, "low": None, "high": None, "seeds": 1}
    half = float(stdtrit(seeds - 1, 0.975) * np.std(values, ddof=1) / seeds**0.5)
    return {"mean": mean, "low": mean - half, "high": mean + half, "seeds": seeds}


def variants(
    only: Sequence[str] = (), method: str = "c-mcr", settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Give the settings of the full method and of each ablation, by name.

    Args:
        only: names of ablations; empty for all.
        method: the full method.
        settings: changes to its settings.

    Raises:
        ConfigError: unknown names or settings.
    """
    for name in only:
        if name not in ABLATIONS:
            raise unknown_name("ablation", name, ABLATIONS)
    chosen = {FULL: {}, **{name: change for name, change in ABLATIONS.items() if not only or name in only}}
    found = {name: {**(settings or {}), **change} for name, change in chosen.items()}
    for changes in found.values():
        settings_of(method, **changes)
    return found


def ablate(
    memories: Sequence[Memory],
    encoders: Sequence[Space],
    run: str,
    record: Record,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    only: Sequence[str] = (),
    method: str = "c-mcr",
    settings: Mapping[str, Any] | None = None,
    overlap: str | None = None,
    prompts: Sequence[Sequence[str]] | None = None,
    out: Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train once for each ablation and seed, and measure all connections on the same embedded items.

    The data set is embedded once, and each semantic consistency computed once for all trainings that share it.

    Args:
        memories: four, as `cmcr.connect` takes them.
        encoders: of both spaces.
        run: as TASK/DATASET.
        record: the data set (see `cmcr.evaluation.runs.record_of`).
        seeds: of the trainings.
        only: names of ablations; empty for all. The full method is always measured.
        method: the full method.
        settings: changes to its settings.
        overlap: the shared modality; None where there is only one.
        prompts: for classification; None takes cmcr's own.
        out: JSON file, written whole after each training: what it holds already is not measured again.
        device: where to train.
        progress: called with what is trained and the share of all trainings that is finished.

    Returns:
        what the file holds: "cells", a training each, and "summary", see `summary`.

    Raises:
        ConfigError: unknown names, no or repeated seeds, encoders that did not make the memories.
        ResumeError: the file holds measurements of something else; the message names what differs.
    """
    changes = variants(only, method, settings)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds: expected different whole numbers, at least one, got {list(seeds)}.")
    seeds = [check_seed(seed) for seed in seeds]
    made_from = {
        "run": run,
        "data": {"name": record.name, "sha256": record.content_hash},
        "method": method,
        "settings": json.loads(json.dumps(asdict(settings_of(method, **(settings or {}))))),
        "overlap": overlap,
        "memories": sorted(
            [one.space, one.modality, hashlib.sha256(repr(one.contents).encode()).hexdigest()] for one in memories
        ),
        "versions": versions_here(),
    }
    cells = _finished(out, made_from)
    finished = {(cell["ablation"], cell["seed"]) for cell in cells}
    todo = [(name, seed) for seed in seeds for name in changes if (name, seed) not in finished]
    spaces = by_space(memories, overlap)
    consistent: dict[tuple[Any, ...], dict[str, Tensor]] = {}
    prepared: Prepared | None = None
    for number, (name, seed) in enumerate(todo):
        if progress is not None:
            progress(f"{name}, seed {seed}", number / len(todo))
        start = time.perf_counter()
        chosen = settings_of(method, **changes[name])
        shared_by = tuple(getattr(chosen, setting) for setting in _CONSISTENCY_SETTINGS)
        if shared_by not in consistent:
            consistent[shared_by] = _consistent_rows(spaces, overlap, chosen, device)
        options = {"overlap": overlap, "method": method, "seed": seed, "device": device, **changes[name]}
        connection = connect(*spaces, consistent=consistent[shared_by], show_progress_bar=False, **options)
        prepared = prepared or prepare(_with_encoders(connection, encoders), run, record, prompts=prompts)
        figures = {key: score.value for key, score in prepared.score(through(connection)).items()}
        seconds = round(time.perf_counter() - start, 2)
        cells.append({"ablation": name, "seed": seed, "figures": figures, "seconds": seconds})
        if out is not None:
            write_signed(out, _content(made_from, seeds, cells))
    return _content(made_from, seeds, cells)


def _consistent_rows(
    spaces: Sequence[Memories], overlap: str | None, settings: Settings, device: str
) -> dict[str, Tensor]:
    if len(spaces) != 2:
        raise ConfigError(f"ablations are of two spaces, got memories of {len(spaces)}.")
    (link,), where = links_of(spaces, overlap), choose_device(device)
    parents = zip(link.names, link.parents, strict=True)
    return {name: enhance(parent.overlap, parent.outer, settings, where) for name, parent in parents}


def _content(made_from: Mapping[str, Any], seeds: Sequence[int], cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    head = {"format": ABLATIONS_FORMAT, "version": VERSION, "made_from": made_from, "seeds": list(seeds)}
    return {**head, "summary": summary(cells, seeds), "cells": list(cells)}


def summary(cells: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Give every figure of every ablation over the seeds, and its difference to the full method, paired by seed."""
    figures = {name: {c["seed"]: c["figures"] for c in cells if c["ablation"] == name} for name in (FULL, *ABLATIONS)}
    full = figures[FULL]
    found: dict[str, dict[str, Any]] = {}
    for name, measured in figures.items():
        given = [seed for seed in seeds if seed in measured]
        both = [seed for seed in given if seed in full and name != FULL]
        for key in measured[given[0]] if given else ():
            gaps = [measured[seed][key] - full[seed][key] for seed in both]
            found.setdefault(name, {})[key] = {
                **over_seeds([measured[seed][key] for seed in given]),
                "minus_full": over_seeds(gaps) if gaps else None,
            }
    return found


def _with_encoders(connection: Connection, encoders: Sequence[Space]) -> Connection:
    """Attach the encoders, after making sure that they made the memories."""
    given = {encoder.name: encoder for encoder in encoders}
    for known in connection.spaces:
        if known.name not in given or known.fingerprint not in (None, given[known.name].fingerprint):
            raise ConfigError(
                f"space {known.name!r}: expected the encoders that made its memories, {known.fingerprint}."
            )
    return dataclasses.replace(connection, encoders=given)


def _finished(out: Path | None, made_from: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read the cells that are measured already."""
    if out is None or not out.exists():
        return []
    try:
        content = read_result(out, ABLATIONS_FORMAT)
    except (FormatError, IntegrityError) as error:
        raise type(error)(f"{error} Or choose another file.") from error
    differing = [key for key in made_from if content["made_from"].get(key) != made_from[key]]
    if differing:
        raise ResumeError(
            f"{out}: measured with something else: {', '.join(differing)}. Choose another file, or remove it."
        )
    cells: list[dict[str, Any]] = content["cells"]
    return cells

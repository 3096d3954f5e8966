"""The demonstration from the first item to the report, in the order of the paper."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmcr._version import __version__
from cmcr.connection.ablations import ABLATIONS
from cmcr.connection.connect import connect
from cmcr.connection.connection import Connection
from cmcr.connection.settings import check_seed, settings_of
from cmcr.data.numbers import handwriting
from cmcr.demo import methods
from cmcr.demo.cases import CaseData, embed_cases
from cmcr.demo.measure import chance_figures, figures_of, retention_of, tasks_of
from cmcr.demo.plots import figure_class
from cmcr.demo.report import page_template, render_report
from cmcr.demo.tasks import measure_tasks
from cmcr.demo.world import World, draw_world
from cmcr.errors import WriteError
from cmcr.evaluation.baselines import RIDGE_STRENGTHS, centred_procrustes, centred_ridge
from cmcr.files import write_text_whole

Progress = Callable[[str, float], None]

RESULTS, REPORT, CONNECTIONS = "results.json", "report.html", "connections"

SOFT = {"ttc_temperature": 0.05, "avc_temperature": 0.05}
"""A softer contrast than the paper's 0.01: better here, and the fairer setting for the oracle, which shares it."""


@dataclass(frozen=True)
class DemoOptions:
    """What a demonstration shall do.

    Attributes:
        seed: of the items, the training and the examples shown.
        method: how to connect (see `cmcr.connect`).
        ablations: measure the paper's ablations too.
        per_number: memory items per seen number and modality; 6 makes memories of 4800.
        settings: changes to the method's settings.
    """

    seed: int = 0
    method: str = "c-mcr"
    ablations: bool = False
    per_number: int = 6
    settings: Mapping[str, Any] = field(default_factory=dict)


QUICK: Mapping[str, Any] = {"per_number": 1, "settings": {"epochs": 6}}
"""The options of a trial: a sixth of the items, a sixth of the epochs, a quarter of the time; figures are lower by up to 15
points of R@1."""


def run_demo(out: Path, options: DemoOptions, progress: Progress) -> dict[str, Any]:
    """Connect the miniature spaces twice, measure everything, write `results.json`, `report.html` and the connections.

    The same options give the same figures bit for bit on one machine; only "timing" differs.

    Args:
        out: folder for the results; made if need be, older results in it are replaced.
        options: what to do.
        progress: called with (stage, share done).

    Returns:
        What `results.json` holds.

    Raises:
        MissingDependencyError: scikit-learn, matplotlib or Jinja is not installed.
        WriteError: the folder cannot be written; this is found out before the work starts.
    """
    settings = settings_of(options.method, **options.settings)
    check_seed(options.seed)
    _import_libraries()
    _begin(out)
    clock = _Clock()
    with clock.stage("draw"):
        progress("drawing items", 0.0)
        world = draw_world(options.seed, options.per_number)
        progress("drawing items", 1.0)
    with clock.stage("embed"):
        cases = embed_cases(world, lambda share: progress("embedding", share))
    connections, measured, heatmaps = [], {}, []
    for data in cases:
        connection, figures = _one_case(data, options, clock, progress)
        connection.save(out / CONNECTIONS / data.case.name)
        connections.append(connection)
        measured[data.case.name] = figures
        with clock.stage(f"tasks {data.case.name}"):
            stage = f"tasks of {data.case.name}"
            figures["paper_tasks"], drawn = measure_tasks(connection, options.seed, partial(progress, stage))
            heatmaps += drawn
    results = _results(options, asdict(settings), world, measured)
    with clock.stage("report"):
        progress("writing the report", 0.0)
        results["timing"] = clock.seconds
        page = render_report(results, world, cases, connections, heatmaps, options.seed)
        write_text_whole(out / REPORT, page)
    results["timing"] = {**clock.seconds, "total": round(sum(clock.seconds.values()), 2)}
    write_text_whole(out / RESULTS, json.dumps(results, indent=2) + "\n")
    progress("writing the report", 1.0)
    return results


def _begin(out: Path) -> None:
    """Find out before the work whether the folder can be written, and remove an older report that would mislead."""
    write_text_whole(out / RESULTS, json.dumps({"finished": False}) + "\n")
    try:
        (out / REPORT).unlink(missing_ok=True)
        (out / CONNECTIONS).mkdir(exist_ok=True)
    except OSError as error:
        raise WriteError(error.errno, f"could not prepare the folder ({error.strerror})", str(out)) from error


def _import_libraries() -> None:
    """Find out before the work what is not installed."""
    handwriting("train")
    page_template()
    figure_class()


def _one_case(
    data: CaseData, options: DemoOptions, clock: _Clock, progress: Progress
) -> tuple[Connection, dict[str, Any]]:
    """Connect one pair of spaces and measure it beside everything it must be compared with."""
    name = data.case.name
    with clock.stage(f"connect {name}"):
        connection = _connect(data, options, {}, lambda share: progress(f"connecting {name}", share))
    with clock.stage(f"compare {name}"):
        stage = f"comparing {name}"
        soft = _connect(data, options, SOFT, lambda share: progress(stage, share / 2))
        oracle = methods.paired_oracle(
            data, soft.settings, options.seed, lambda share: progress(stage, 0.5 + share / 2)
        )
        figures = {
            "chance": chance_figures(data),
            "centred_ridge": _best_ridge(data),
            "centred_procrustes": figures_of(data, methods.centred(data, centred_procrustes)),
            "overlap_posterior": figures_of(data, methods.posterior(data)),
            options.method: figures_of(data, methods.connected(data, connection)),
            "soft": figures_of(data, methods.connected(data, soft)),
            "paired_oracle": figures_of(data, oracle),
        }
        retention = retention_of(data, connection)
    measured: dict[str, Any] = {
        "spaces": list(data.case.spaces),
        "overlap": data.case.overlap,
        "outer": list(data.case.outer),
        "tasks": list(tasks_of(data)),
        "methods": figures,
        "retention": retention,
    }
    if options.ablations:
        with clock.stage(f"ablate {name}"):
            measured["ablations"] = _ablations(data, options, progress)
    return connection, measured


def _connect(
    data: CaseData, options: DemoOptions, change: Mapping[str, Any], progress: Callable[[float], None] | None = None
) -> Connection:
    left, right = (side.memories for side in data.sides)
    return connect(
        left,
        right,
        overlap=data.case.overlap,
        method=options.method,
        seed=options.seed,
        device="cpu",  # the same figures on every kind of machine matter more here than speed
        progress=lambda stage, share: progress(share) if progress and stage == "training" else None,
        **{**options.settings, **change},
    )


def _best_ridge(data: CaseData) -> dict[str, Any]:
    """Measure the ridge at several strengths and keep the best: chosen on the test items, which favours the baseline."""
    tried = []
    for strength in RIDGE_STRENGTHS:
        figures = figures_of(data, methods.centred(data, partial(centred_ridge, strength=strength)))
        tried.append({**figures, "strength": strength})
    return max(tried, key=lambda figures: sum(figures[f"{task}/R@1"] for task in tasks_of(data)))


def _ablations(data: CaseData, options: DemoOptions, progress: Progress) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    stage = f"ablating {data.case.name}"
    for done, (label, change) in enumerate(ABLATIONS.items()):
        progress(stage, done / len(ABLATIONS))
        figures[label] = figures_of(data, methods.connected(data, _connect(data, options, change)))
    progress(stage, 1.0)
    return figures


def _results(options: DemoOptions, settings: dict[str, Any], world: World, measured: dict[str, Any]) -> dict[str, Any]:
    return {
        "finished": True,
        "format": "cmcr demo results",
        "version": 1,
        "seed": options.seed,
        "method": options.method,
        "settings": settings,
        "memory_items": {modality: len(items.numbers) for modality, items in world.memory.items()},
        "test_items": 1000,
        "unseen_test_items": 200,
        "software": {
            "cmcr": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scikit-learn": metadata.version("scikit-learn"),
        },
        "connections": measured,
    }


class _Clock:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)

"""The demonstration from the first item to the report, in the order of the paper."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cmcr._version import versions_here
from cmcr.connection.methods import settings_of
from cmcr.connection.settings import check_seed
from cmcr.data.numbers import ALL_NUMBERS, UNSEEN_NUMBERS, handwriting
from cmcr.demo.measure import DemoOptions, ablate, compare, connect_all, jobs_of, measure_tasks, measure_wide_gap
from cmcr.demo.report import page_template, render_report
from cmcr.demo.world import CASES, World, draw_world, embed_world
from cmcr.errors import WriteError
from cmcr.evaluation.tasks.heatmaps import figure_class
from cmcr.files import write_text_whole
from cmcr.progress import Progress

RESULTS, REPORT, CONNECTIONS = "results.json", "report.html", "connections"

QUICK: Mapping[str, Any] = {"per_number": 1}
"""The options of a trial: a sixth of the items, a third of the time; figures are lower by up to 10 points of R@1."""


def run_demo(out: Path, options: DemoOptions, progress: Progress) -> dict[str, Any]:
    """Connect the miniature spaces twice, measure everything, write `results.json`, `report.html` and the connections.

    The same options give the same figures bit for bit on one machine; only "timing" differs.

    Args:
        out: folder for the results; made if need be, older results in it are replaced.
        options: what to do.
        progress: called with the stage and the share of it that is finished.

    Returns:
        What `results.json` holds.

    Raises:
        MissingDependencyError: scikit-learn, matplotlib or Jinja is not installed.
        WriteError: the folder cannot be written; this is found out before the work starts.
    """
    settings = settings_of(options.method)
    check_seed(options.seed)
    _check_libraries()
    _prepare_folder(out)
    seconds: dict[str, float] = {}
    with _timed(seconds, "draw"):
        progress("drawing items", 0.0)
        world = draw_world(options.seed, options.per_number)
        progress("drawing items", 1.0)
    with _timed(seconds, "embed"):
        cases = embed_world(world, partial(progress, "embedding"))
    with _timed(seconds, "connect"):
        jobs = [jobs_of(data, options) for data in cases]
        found = connect_all([job for each in jobs for job in each.values()], options, partial(progress, "connecting"))
    trained = [dict(zip(each, found[number * len(each) :], strict=False)) for number, each in enumerate(jobs)]
    measured, located = {}, []
    for data, connections in zip(cases, trained, strict=True):
        name, connection = data.case.name, connections[options.method]
        connection.save(out / CONNECTIONS / name, replace=True)
        with _timed(seconds, f"compare {name}"):
            progress(f"comparing {name}", 0.0)
            figures = compare(data, connections, options.method)
            progress(f"comparing {name}", 1.0)
        if options.ablations:
            with _timed(seconds, f"ablate {name}"):
                figures["ablations"] = ablate(data, options, partial(progress, f"ablating {name}"))
        if data.case is CASES[0]:
            with _timed(seconds, f"wide gap of {name}"):
                figures["wide_gap"] = measure_wide_gap(
                    data, connection, options, partial(progress, f"wide gap of {name}")
                )
        with _timed(seconds, f"tasks {name}"):
            figures["paper_tasks"], typical = measure_tasks(
                connection, options.seed, partial(progress, f"tasks of {name}")
            )
        located += typical
        measured[name] = figures
    results = _results(options, asdict(settings), world, measured)
    with _timed(seconds, "report"):
        progress("writing the report", 0.0)
        results["timing"] = seconds
        write_text_whole(out / REPORT, render_report(results, world, cases, trained, located, options.seed))
    results["timing"] = {**seconds, "total": round(sum(seconds.values()), 2)}
    write_text_whole(out / RESULTS, json.dumps(results, indent=2) + "\n")
    progress("writing the report", 1.0)
    return results


def _results(options: DemoOptions, settings: dict[str, Any], world: World, measured: dict[str, Any]) -> dict[str, Any]:
    return {
        "finished": True,
        "format": "cmcr demo results",
        "version": 2,
        "seed": options.seed,
        "method": options.method,
        "settings": settings,
        "memory_items": {modality: len(items) for modality, items in world.memory.items()},
        "test_items": len(ALL_NUMBERS),
        "unseen_test_items": len(UNSEEN_NUMBERS),
        "software": versions_here(),
        "connections": measured,
    }


def _check_libraries() -> None:
    """Find out before the work what is not installed."""
    handwriting("train")
    page_template()
    figure_class()


def _prepare_folder(out: Path) -> None:
    """Find out before the work whether the folder can be written, and remove an older report that would mislead."""
    write_text_whole(out / RESULTS, json.dumps({"finished": False}) + "\n")
    try:
        (out / REPORT).unlink(missing_ok=True)
        (out / CONNECTIONS).mkdir(exist_ok=True)
    except OSError as error:
        raise WriteError(f"{out}: could not be prepared ({error}).") from error


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 2)

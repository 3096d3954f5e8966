"""`cmcr evaluate`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cmcr.cli.console import percent, print_table, shown_stages
from cmcr.cli.options import Data, Json, Model, memories_of, spaces_of
from cmcr.errors import ConfigError

if TYPE_CHECKING:
    from cmcr.connection.connection import Connection
    from cmcr.evaluation.evaluate import Evaluation


def evaluate(
    connection: Path,
    run: str | None = None,
    /,
    *,
    data: Data = Data(),  # noqa: B008 - frozen
    every: Annotated[bool, Parameter(name="--all")] = False,
    pairs: Path | None = None,
    out: Path | None = None,
    model: Model = None,
    against: list[Path] | None = None,
    memories: list[Path] | None = None,
    prompts: Path | None = None,
    prompts_key: str | None = None,
    heatmaps: int = 0,
    detector: str | None = None,
    map_rule: str = "value",
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Measure a connection on the paper's tasks: every figure with its interval, chance and the published rows beside it.

    RUN is TASK/DATASET: retrieval/ave, localization/vgg-ss, counterfactual/ex-vgg-ss, classification/modelnet40,
    retention/coco, ...; those on the miniature world need no data: retrieval/mini-audio-image, localization/mini, ...
    Example: cmcr evaluate cmcr-demo/connections/audio-image retrieval/mini-audio-image

    Args:
        connection: Folder of a connection.
        run: What to measure, as TASK/DATASET.
        every: Measure all that the connection can do: on the miniature world, or on all data sets in --data, one folder each.
            Those that are incomplete are named at the end, and the exit code is 1.
        pairs: A table of pairs of your own, to be retrieved by each other: CSV, TSV, JSONL or Parquet with two columns named
            by modalities, such as audio and image, that hold paths or texts.
        out: Folder for one JSON file a run, and for heat maps; without it, results are only shown.
        against: Other connections of the same encoders, compared on the same items.
        memories: Memories of both spaces, to fit the standard baselines on.
        prompts: A file of prompt templates for classification, as ULIP's templates.json, instead of cmcr's own.
        prompts_key: Which list of that file.
        heatmaps: For localization: how many pictures with heat maps to write to --out.
        detector: For localization: take boxes from this object detector, a folder or a repository such as hustvl/yolos-tiny,
            instead of a grid.
        map_rule: For localization: cut the map at half its range (value), or take the upper half of its pixels (share).
        seed: Of the intervals, of chance, and of the miniature data.
    """
    if [every, run is not None, pairs is not None].count(True) != 1:
        raise ConfigError(
            "expected what to measure: RUN, such as retrieval/mini-audio-image, or --all, or --pairs TABLE."
        )
    _check_heatmaps(heatmaps, out, run)
    if prompts_key is not None and prompts is None:
        raise ConfigError("--prompts-key needs a file: --prompts FILE.")
    from cmcr.evaluation.runs import evaluate_runs
    from cmcr.loading import load

    loaded = load(connection, encoders=spaces_of(model))
    options: dict[str, Any] = {
        **asdict(data),
        "pairs": pairs,
        "prompts": prompts,
        "prompts_key": prompts_key,
        "memories": memories_of(memories or ()),
        "against": {str(path): load(path) for path in against or []},
        "proposals": _proposals(detector),
        "map_rule": map_rule,
        "seed": seed,
    }
    measured: list[Mapping[str, Any]] = []
    try:
        with shown_stages(quiet=as_json) as progress:
            for evaluation in evaluate_runs(loaded, run, progress=progress, **options):
                measured.append(evaluation.result)
                _keep(evaluation, loaded, out, heatmaps)
                if as_json:
                    print(json.dumps(evaluation.result), flush=True)
    finally:  # what was measured is shown, whatever stopped the rest
        if not as_json:
            for result in measured:
                _show(result)
            if len(measured) > 1:
                _show_summary(measured)


def _check_heatmaps(heatmaps: int, out: Path | None, run: str | None) -> None:
    if heatmaps < 0:
        raise ConfigError(f"--heatmaps: expected a number of pictures, 0 or more, got {heatmaps}.")
    if heatmaps and out is None:
        raise ConfigError("--heatmaps need a folder: --out FOLDER.")
    if heatmaps and run is not None and not run.startswith("localization/"):
        raise ConfigError(f"--heatmaps: only localization has any, not {run}.")
    if heatmaps:  # refused before anything is measured
        from cmcr.evaluation.tasks.heatmaps import figure_class

        figure_class()


def _proposals(detector: str | None) -> Any:
    if detector is None:
        return None
    from cmcr.evaluation.tasks.regions import detector as open_detector

    return open_detector(detector)


def _keep(evaluation: Evaluation, connection: Connection, out: Path | None, heatmaps: int) -> None:
    """Write a result, and heat maps where they were asked for."""
    if out is None:
        return
    from cmcr.files import write_signed

    name = evaluation.result["run"].replace("/", "-")
    write_signed(out / f"{name}.json", evaluation.result)
    from cmcr.evaluation.tasks.localization import PreparedLocalization

    if heatmaps and isinstance(evaluation.prepared, PreparedLocalization):
        from cmcr.evaluation.baselines import through
        from cmcr.evaluation.tasks.heatmaps import write_heatmaps

        write_heatmaps(evaluation.prepared, through(connection), out / f"{name}-heatmaps", heatmaps)


def _show(result: Mapping[str, Any]) -> None:
    """Print one run: figures down, what was measured across, the published rows last."""
    from cmcr.evaluation.tasks.scores import told_by_another

    figures, quoted, data = result["figures"], result["published_in_percent"], result["data"]
    # The paper of a published row is in the JSON; the table names the model.
    models = [f"quoted: {row['source'].split(' (')[0].split(',')[0]}" for row in quoted]
    shown = [key for key in figures["connection"] if not told_by_another(key, figures)]
    rows = []
    for key in shown:
        ours = [percent(measured[key]) if key in measured else "" for measured in figures.values()]
        theirs = [f"{row['figures'][key]:g}" if key in row["figures"] else "" for row in quoted]
        rows.append([key, *ours, *theirs])
    n = max(figure["n"] for figure in figures["connection"].values())
    lost = f", {data['failed']} could not be embedded" if data["failed"] else ""
    lost += f", {data['left_out']} left out for want of files" if data["left_out"] else ""
    asked = f", prompts: {data['prompts']}" if "prompts" in data else ""
    print_table(
        f"{result['run']}: {data['name']}, n = {n}{lost}{asked}", ["percent [95 % interval]", *figures, *models], rows
    )
    for other, differences in result["connection_minus"].items():
        rows = [
            [key, percent(found, "difference", "+"), "" if (p := found["sign_flip_p"]) is None else f"{p:.3g}"]
            for key, found in differences.items()
            if key in shown
        ]
        print_table(f"{result['run']}: this connection minus {other}", ["points", "difference", "p (sign flip)"], rows)


def _show_summary(results: Sequence[Mapping[str, Any]]) -> None:
    """Print one line a run: its first figure, or the mean of both directions where there is one."""
    rows = []
    for result in results:
        figures = result["figures"]
        key = next(iter(sorted(figures["connection"], key=lambda key: key != "mean/R@1")))
        cells = [
            percent(figures[name][key]) if name in figures else "" for name in ("connection", "chance", "own space")
        ]
        rows.append([result["run"], key, *cells])
    print_table("in short", ["run", "percent [95 % interval]", "connection", "chance", "own space"], rows)

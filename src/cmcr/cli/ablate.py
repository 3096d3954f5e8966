"""`cmcr ablate`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmcr.cli.console import percent, print_table, say, shown_stages
from cmcr.cli.options import Data, Json, Model, Set, memories_of, models_of, settings_of
from cmcr.errors import ConfigError

_HEADLINES = re.compile(r"mean/(R@1|R@5|mAP)|present/.*|.*/(top-1|top-5|cIoU@0\.5|AUC)")  # what the tables show


def ablate(
    memories: list[Path],
    /,
    *,
    run: str,
    data: Data = Data(),  # noqa: B008 - frozen
    seeds: list[int] | None = None,
    only: list[str] | None = None,
    method: str = "c-mcr",
    setting: Set = None,
    overlap: str | None = None,
    model: Model = None,
    device: str = "auto",
    out: Path | None = None,
    as_json: Json = False,
) -> None:
    """Switch every ingredient of the method off in turn, over several seeds: what is each of them worth?

    Trains once for each ablation and seed. With --out, a run that was stopped resumes.
    Example: cmcr ablate texts-in-clip images texts-in-clap sounds --run retrieval/mini-audio-image --out ablations.json

    Args:
        memories: Folders of memories, of two spaces, as cmcr connect takes them.
        run: What to measure, as TASK/DATASET (see cmcr evaluate).
        seeds: Of the trainings; 0 1 2 if left out.
        only: Ablations to measure beside the full method; a part of a name will do where it fits only one.
        method: The full method.
        overlap: The shared modality, where there are two.
        device: auto, cpu, cuda, mps.
        out: JSON file for all figures, written after each training.
    """
    from cmcr.evaluation.ablations import ablate as measure
    from cmcr.evaluation.ablations import variants
    from cmcr.evaluation.runs import record_of

    plan: dict[str, Any] = {
        "only": [_name(given) for given in only or ()],
        "method": method,
        "settings": settings_of(setting),
    }
    variants(**plan)  # wrong names are reported before any data is read
    opened = memories_of(memories)
    encoders = _encoders({memory.space for memory in opened}, models_of(model))
    record, prompts = record_of(run, **asdict(data))
    with shown_stages(quiet=as_json) as progress:
        found = measure(
            opened,
            encoders,
            run,
            record,
            seeds=(0, 1, 2) if seeds is None else seeds,
            overlap=overlap,
            prompts=prompts,
            out=out,
            device=device,
            progress=progress,
            **plan,
        )
    if as_json:
        print(json.dumps(found))
    else:
        _show(found)


def _name(given: str) -> str:
    """Complete the name of an ablation from a part of it."""
    from cmcr.evaluation.ablations import ABLATIONS

    fitting = [given] if given in ABLATIONS else [name for name in ABLATIONS if given.casefold() in name.casefold()]
    return fitting[0] if len(fitting) == 1 else given


def _encoders(names: set[str], models: Mapping[str, str]) -> list[Any]:
    """Open the encoders of the memories' spaces: with the models given, else those that need none."""
    from cmcr.spaces.registry import ready_space, space

    opened = {name: space(name, model=models[name]) if name in models else ready_space(name) for name in sorted(names)}
    for name, encoders in opened.items():
        if encoders is None:
            raise ConfigError(f"--model: the encoders of {name!r} need a model, such as {name}=PATH.")
    return list(opened.values())


def _show(found: Mapping[str, Any]) -> None:
    """Print a table for every headline figure: ablations down."""
    made_from, seeds = found["made_from"], ", ".join(map(str, found["seeds"]))
    say(
        f"{made_from['run']} on {made_from['data']['name']}, seeds {seeds}: mean and 95 % t interval over seeds, and the",
        "difference to the full method, paired by seed; percent. --json and --out have every figure.",
    )
    for key in filter(_HEADLINES.fullmatch, next(iter(found["summary"].values()))):
        rows = []
        for name, figures in found["summary"].items():
            difference = figures[key]["minus_full"]
            rows.append([name, percent(figures[key], "mean"), percent(difference, "mean", "+") if difference else ""])
        print_table(key, ["", "mean", "minus full"], rows)

"""`cmcr ablate`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cmcr.cli.changes import changes_of
from cmcr.cli.console import print_table, shown_stages
from cmcr.cli.models import models_of
from cmcr.errors import ConfigError

HEADLINES = re.compile(r"mean/(R@1|R@5|mAP)|present/.*|.*/(top-1|top-5|cIoU@0\.5|AUC)")
"""Which figures stand in the table."""


def ablate(
    memories: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    /,
    *,
    run: str,
    data: Path | None = None,
    seeds: Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")] = None,
    only: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    method: str = "c-mcr",
    setting: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True, negative="")] = None,
    overlap: str | None = None,
    model: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    split: str | None = None,
    limit: int | None = None,
    allow_missing: Annotated[bool, Parameter(negative="")] = False,
    device: str = "auto",
    out: Path | None = None,
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Switch every ingredient of the method off in turn, over several seeds: what is each of them worth?

    Trains once for each ablation and seed. With --out, a run that was stopped goes on where it was.
    Example: cmcr ablate texts-in-clip images texts-in-clap sounds --run retrieval/mini-audio-image --out ablations.json

    Parameters
    ----------
    memories
        Folders of memories, of two spaces, as cmcr connect takes them.
    run
        What to measure, as TASK/DATASET (see cmcr evaluate).
    data
        Folder of the data set in its published layout; not needed for the miniature world.
    seeds
        Of the trainings; 0 1 2 if left out.
    only
        Ablations to measure beside the full method; a part of a name will do where it fits only one.
    method
        The full method.
    setting
        Changes to its settings, such as epochs=10.
    overlap
        The shared modality, where there are two.
    model
        Which models to open the encoders with, as SPACE=MODEL.
    split
        Of the data set.
    limit
        Take so many items only.
    allow_missing
        Leave out items whose files are not there.
    device
        auto, cpu, cuda, mps.
    out
        JSON file for all figures, written after each training.
    json_output
        Print one line of JSON.
    """
    from cmcr.evaluation.ablations import AblationPlan
    from cmcr.evaluation.ablations import ablate as measure
    from cmcr.evaluation.reading import record_of
    from cmcr.memories.memory import Memory

    plan = AblationPlan(
        run=run,
        seeds=tuple(seeds if seeds is not None else (0, 1, 2)),
        only=tuple(_name(given) for given in only or ()),
        method=method,
        settings=changes_of(setting or []),
        overlap=overlap,
    )
    plan.changes()  # wrong names are told before any data is read
    kinds: dict[tuple[str, str], list[Path]] = {}
    for folder in memories:
        memory = Memory(folder)
        kinds.setdefault((memory.space, memory.modality), []).append(folder)
    opened = [Memory(*folders) for folders in kinds.values()]
    record, prompts = record_of(run, data, split=split, limit=limit, allow_missing=allow_missing)
    with shown_stages(quiet=json_output) as progress:
        found = measure(
            opened,
            plan,
            record,
            _encoders([memory.space for memory in opened], model or []),
            prompts=prompts,
            out=out,
            device=device,
            progress=progress,
        )
    if json_output:
        print(json.dumps(found))
    else:
        _show(found)


def _name(given: str) -> str:
    """Complete the name of an ablation from a part of it."""
    from cmcr.connection.ablations import ABLATIONS

    if given in ABLATIONS:
        return given
    fitting = [name for name in ABLATIONS if given.casefold() in name.casefold()]
    return fitting[0] if len(fitting) == 1 else given


def _encoders(names: list[str], models: list[str]) -> list[Any]:
    """Open the encoders of the memories' spaces: by the models given, else those that need none."""
    from cmcr.spaces.registry import ready_space, space

    chosen = models_of(models)
    found = []
    for name in dict.fromkeys(names):
        ready = space(name, model=chosen[name]) if name in chosen else ready_space(name)
        if ready is None:
            raise ConfigError(f"--model: say with which model to open the encoders of {name!r}, such as {name}=PATH.")
        found.append(ready)
    return found


def _show(found: Mapping[str, Any]) -> None:
    """Print a table for every headline figure: ablations down."""
    keys = next(iter(found["summary"].values()))
    seeds = ", ".join(map(str, found["seeds"]))
    print(
        f"{found['made_from']['run']} on {found['made_from']['data']['name']}, seeds {seeds}: mean and 95 % t interval over"
    )
    print("seeds, and the difference to the full method, paired by seed; percent. --json and --out have every figure.")
    for key in keys:
        if HEADLINES.fullmatch(key):
            print_table(key, ["", "mean", "minus full"], [_row(name, f[key]) for name, f in found["summary"].items()])


def _row(name: str, figure: Mapping[str, Any]) -> list[str]:
    return [name, _cell(figure), "" if figure["minus_full"] is None else _cell(figure["minus_full"], "+")]


def _cell(figure: Mapping[str, Any], sign: str = "") -> str:
    mean = f"{100 * figure['mean']:{sign}.1f}"
    if figure["low"] is None:
        return mean
    return f"{mean} [{100 * figure['low']:{sign}.1f}, {100 * figure['high']:{sign}.1f}]"

"""`cmcr plan`, and the table of a plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cmcr.cli.console import print_table
from cmcr.errors import CmcrError

if TYPE_CHECKING:
    from cmcr.recipes.plan import Plan, StagePlan

_MANY = Parameter(consume_multiple=True, negative="")


class CannotFitError(CmcrError):
    """A plan of what does not fit on this machine."""


def plan(
    recipe: Path,
    /,
    *,
    only: Annotated[list[str] | None, _MANY] = None,
    root: Path | None = None,
    device: str = "auto",
    items: Annotated[list[str] | None, _MANY] = None,
    width: Annotated[list[str] | None, _MANY] = None,
    rate: Annotated[list[str] | None, _MANY] = None,
    rates: Path | None = None,
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Tell what a recipe takes on this machine, and what dominates, before any data or weights are there.

    Arithmetic, and two seconds of measuring matrix products; no encoder is opened, nothing is fetched or written.
    Example: cmcr plan recipes/paper/clip-clap.toml --rate clap/audio=50

    Parameters
    ----------
    recipe
        A TOML file; see docs/recipes.md.
    only
        Stages to plan: embed, connect, evaluate, or names of single ones.
    root
        Folder from which the recipe's paths begin; else that of the recipe.
    device
        auto, cpu, cuda, mps.
    items
        How many items there will be, as NAME=COUNT: NAME is an input, an out or a modality of the recipe.
    width
        How wide a space is, as SPACE=WIDTH, where it is not known.
    rate
        How fast an encoder is, as SPACE/MODALITY=ITEMS_A_SECOND.
    rates
        File with the output of cmcr run --dry-run --json, to take the rates from.
    json_output
        Print one line of JSON, all numbers raw.
    """
    from cmcr.recipes.assumptions import read_assumptions
    from cmcr.recipes.reading import read_recipe
    from cmcr.recipes.recipe_plan import plan_recipe

    chosen = read_recipe(recipe, root=root)
    said = read_assumptions(chosen, items or (), width or (), rate or (), rates)
    tell_plan(plan_recipe(chosen, said, only=only or (), device=device), json_output)


def tell_plan(found: Plan, as_json: bool) -> None:
    """Print a plan.

    Raises:
        CannotFitError: the run does not fit on this machine.
    """
    if as_json:
        print(json.dumps(found.as_json()))
    else:
        _show(found)
    if found.problems:
        listed = "".join(f"\n- {problem}" for problem in found.problems)
        raise CannotFitError(f"this cannot run here:{listed}")


def _show(found: Plan) -> None:
    from cmcr.recipes.readable import readable_bytes

    gpu = found.machine["gpu_bytes"] is not None
    columns = ["stage", "state", "items", "operations", "reads", "writes", "RAM", *(["GPU"] if gpu else []), "takes"]
    print_table(found.name, columns, [_row(stage, gpu) for stage in found.stages])
    for note, stages in _notes(found).items():
        print(f"{', '.join(stages)}: {note}")
    if found.unknown:
        print("? To tell more, say:" + "".join(f"\n  {thing}" for thing in found.unknown))
    machine = found.machine
    available = readable_bytes(machine["ram_available_bytes"])
    sizes = [f"{readable_bytes(machine['ram_bytes'])} of RAM, {available} of it available now"]
    if gpu:
        sizes.append(f"{readable_bytes(machine['gpu_bytes'])} on the GPU")
    rates = [f"{rate:.1e} in {precision}" for precision, rate in machine["operations_per_second"].items()]
    if rates:
        sizes.append(f"operations a second, measured: {' and '.join(rates)}")
    together = f", {machine['processes']} processes" if machine["processes"] > 1 else ""
    print(f"this machine ({machine['device']}{together}): {', '.join(sizes)}")
    for disk in found.disks:
        if disk.needed:
            print(f"disk: {readable_bytes(disk.needed)} needed below {disk.place}, {readable_bytes(disk.free)} free")
    print(found.verdict)


def _row(stage: StagePlan, gpu: bool) -> list[str]:
    from cmcr.recipes.readable import readable_bytes, readable_seconds

    sizes = [stage.reads, stage.writes, stage.ram, *([stage.gpu] if gpu else [])]
    return [
        stage.stage,
        stage.state,
        _known(stage.items, "{:,}".format),
        _known(stage.operations, lambda count: f"{count:.1e}" if count else "0"),
        *(_known(size, lambda size: readable_bytes(size) if size else "0") for size in sizes),
        readable_seconds(stage.seconds),
    ]


def _known(value: Any, write: Callable[[Any], str]) -> str:
    return "?" if value is None else write(value)


def _notes(found: Plan) -> dict[str, list[str]]:
    """Gather the stages that one note is about."""
    notes: dict[str, list[str]] = {}
    for stage in found.stages:
        for note in stage.notes:
            notes.setdefault(note, []).append(stage.stage)
    return notes

"""`cmcr run`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cmcr.cli.console import print_table, shown_stages
from cmcr.cli.stopping import stopped_gently
from cmcr.errors import CmcrError

if TYPE_CHECKING:
    from cmcr.recipes.dry_run import DryRun
    from cmcr.recipes.stages import Outcome

HEADLINES = re.compile(r"mean/(R@1|R@5|mAP)|present/.*|.*/(top-1|top-5|cIoU@0\.5|AUC)")
"""Which figures of a run stand in the table."""


def run(
    recipe: Path,
    /,
    *,
    only: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    root: Path | None = None,
    device: str = "auto",
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Carry out a recipe: from folders of raw data to a table of figures. Stopped, the same command goes on.

    Example: cmcr run recipes/paper/clip-clap.toml --root data --dry-run

    Parameters
    ----------
    recipe
        A TOML file; see docs/recipes.md.
    only
        Stages to carry out: embed, connect, evaluate, or names of single ones as a dry run shows them.
    dry_run
        Check inputs, encoders, data sets, disk and time, and write nothing.
    root
        Folder from which the recipe's paths begin; else that of the recipe.
    device
        auto, cpu, cuda, mps.
    json_output
        Print one line of JSON a stage; of a dry run one line in all.
    """
    from cmcr.recipes.reading import read_recipe
    from cmcr.recipes.stages import run_recipe

    chosen = read_recipe(recipe, root=root)
    if dry_run:
        from cmcr.recipes.dry_run import dry_run as check

        _tell_dry_run(check(chosen, only=only or (), device=device), json_output)
        return
    results = []
    safe = f"finished stages, and finished shards of the one under way, are safe. Run {recipe} again to go on."
    with stopped_gently(safe), shown_stages(quiet=json_output) as progress:
        for outcome in run_recipe(chosen, only=only or (), device=device, progress=progress):
            _tell_outcome(outcome, json_output)
            if outcome.stage.startswith("evaluate "):
                results.append(outcome.facts)
    if results and not json_output:
        _show_results(chosen.name, results)


class CannotRunError(CmcrError):
    """A dry run that found something in the way."""


def _tell_outcome(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(outcome)), flush=True)
        return
    facts = {key: value for key, value in outcome.facts.items() if key in ("rows", "quarantined", "overlap_rows")}
    said = ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in facts.items())
    took = f" in {outcome.seconds:.0f} s" if outcome.state == "finished" else ""
    print(f"{outcome.stage}: {outcome.state}{took}{f' ({said})' if said else ''}", file=sys.stderr, flush=True)


def _show_results(name: str, results: Sequence[Mapping[str, Any]]) -> None:
    """Print the figures of all runs, chance and the published ones beside them."""
    rows = []
    for result in results:
        rows_quoted = result["published_in_percent"]
        quoted = next((row["figures"] for row in rows_quoted if row["source"].startswith("C-MCR")), dict[str, float]())
        for key, figure in result["figures"]["connection"].items():
            if HEADLINES.fullmatch(key):
                chance = result["figures"]["chance"][key]["value"]
                cell = f"{100 * figure['value']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"
                rows.append(
                    [result["run"], key, cell, f"{100 * chance:.1f}", str(quoted.get(key, "")), f"{figure['n']:,}"]
                )
    print_table(f"{name}, percent", ["run", "figure", "connection [95 %]", "chance", "C-MCR (quoted)", "n"], rows)


def _tell_dry_run(found: DryRun, as_json: bool) -> None:
    """Print what a dry run found.

    Raises:
        CannotRunError: the recipe cannot be run.
    """
    if as_json:
        print(json.dumps({**asdict(found), "can_run": found.can_run}))
    else:
        _show_dry_run(found)
    if not found.can_run:
        listed = "".join(f"\n- {problem}" for problem in found.problems)
        raise CannotRunError(f"the recipe cannot be run, {len(found.problems)} thing(s) to mend first:{listed}")


def _show_dry_run(found: DryRun) -> None:
    from cmcr.recipes.readable import readable_bytes, readable_seconds

    rows = [
        [
            stage.stage,
            stage.state,
            f"{stage.items:,}",
            readable_bytes(stage.bytes),
            readable_seconds(stage.seconds),
        ]
        for stage in found.stages
    ]
    print_table("what would be done", ["stage", "state", "items", "will write", "about"], rows)
    for stage in found.stages:
        for note in stage.notes:
            print(f"{stage.stage}: {note}")
    if found.rates:
        rates = ", ".join(f"{name.replace(', ', ' ')} {rate:,.1f}" for name, rate in found.rates.items())
        print(f"measured here: {rates}")
    if found.can_run:
        print(
            f"It can be run: {readable_bytes(found.bytes)} and about {readable_seconds(found.seconds)} are left to do."
        )

"""`cmcr info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cmcr.cli.console import print_table, say
from cmcr.cli.options import Json


def info(path: Path, /, *, as_json: Json = False) -> None:
    """Describe what cmcr has written: of a connection its diagnosis, of what is unfinished how far it is and how to resume.

    Example: cmcr info captions-in-clip

    Args:
        path: Folder of a memory, a connection or an index, finished or not; file or folder of results.
    """
    from cmcr.artefacts import describe

    facts = describe(path)
    if as_json:
        print(json.dumps(facts))
        return
    findings, short = facts.pop("diagnosis", None), facts.pop("in_short", ())
    print_table(str(path), ["", ""], list(_rows(facts)))
    say(*short)
    if findings is not None:
        _print_diagnosis(findings)


def _print_diagnosis(findings: list[dict[str, Any]]) -> None:
    """Show all that was measured as a table, and what failed in sentences."""
    if not findings:
        say("No diagnosis: nothing was measured when this connection was made.")
        return
    verdicts = {True: "ok", False: "FAILED"}
    rows = [[f["name"], f["where"], f"{f['value']:.3g}", f"{f['threshold']:g}", verdicts[f["ok"]]] for f in findings]
    print_table("diagnosis", ["check", "of", "value", "threshold", ""], rows)
    for f in findings:
        if not f["ok"]:
            say("", f"{f['name']}, {f['where']}: {f['message']}", f"  {f['advice']}")


def _rows(facts: dict[str, Any], within: str = "") -> Any:
    """Lay facts out as lines; those of a nested dictionary get its name in front."""
    for key, value in facts.items():
        name = f"{within}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _rows(value, f"{name}: ")
        else:
            yield [name, _shown(value)]


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)

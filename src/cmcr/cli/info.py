"""`cmcr info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cmcr.cli.console import print_table
from cmcr.cli.options import Json


def info(path: Path, /, *, as_json: Json = False) -> None:
    """Describe an artefact; of a memory that is not finished, how far it is.

    Example: cmcr info captions-in-clip

    Args:
        path: Folder of a memory or a connection.
    """
    from cmcr.artefacts import describe

    facts = describe(path)
    print(json.dumps(facts)) if as_json else print_table(str(path), ["", ""], list(_rows(facts)))


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

"""Changes to a method's settings, as they are written on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cmcr.errors import ConfigError


def changes_of(given: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE, values as JSON: numbers, true, false, null; anything else is a word.

    Raises:
        ConfigError: no `=`, or a name that was given before.
    """
    changes: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set: expected NAME=VALUE, such as epochs=10, got {pair!r}.")
        if name in changes:
            raise ConfigError(f"--set: expected every setting once, got {name!r} twice.")
        changes[name] = _value(value)
    return changes


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return tuple(value) if isinstance(value, list) else value

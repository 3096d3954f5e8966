"""Options that several verbs share, and what their words mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cmcr.errors import ConfigError

if TYPE_CHECKING:
    from cmcr.memories.memory import Memory
    from cmcr.spaces.protocol import Space

Json = Annotated[bool, Parameter(name="--json", help="Print one line of JSON, and nothing else.")]
Set = Annotated[
    list[str] | None,
    Parameter(name="--set", help="Changes to the method's settings, such as epochs=10 batch_size=4096."),
]
Model = Annotated[
    list[str] | None,
    Parameter(name="--model", help="Models of the encoders, as SPACE=MODEL: a repository, a folder or a file."),
]


def settings_of(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE, values as JSON: numbers, true, false, null; anything else is a word.

    Raises:
        ConfigError: no `=`, or a name given twice.
    """
    settings: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set: expected NAME=VALUE, such as epochs=10, got {pair!r}.")
        if name in settings:
            raise ConfigError(f"--set: expected every setting once, got {name!r} twice.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        settings[name] = tuple(value) if isinstance(value, list) else value
    return settings


def models_of(pairs: Sequence[str] | None) -> dict[str, str]:
    """Read SPACE=MODEL: models by the space's name.

    Raises:
        ConfigError: no `=`.
    """
    models = {}
    for pair in pairs or ():
        name, equals, model = pair.partition("=")
        if not equals:
            raise ConfigError(f"--model: expected SPACE=MODEL, such as ulip=pointbert.pt, got {pair!r}.")
        models[name] = model
    return models


def spaces_of(pairs: Sequence[str] | None) -> list[Space]:
    """Open the spaces of SPACE=MODEL."""
    from cmcr.spaces.registry import space

    return [space(name, model=model) for name, model in models_of(pairs).items()]


def memories_of(folders: Sequence[Path]) -> list[Memory]:
    """Open memories, those of one space and modality as one."""
    from cmcr.memories.memory import Memory

    kinds: dict[tuple[str, str], list[Path]] = {}
    for folder in folders:
        memory = Memory(folder)
        kinds.setdefault((memory.space, memory.modality), []).append(folder)
    return [Memory(*alike) for alike in kinds.values()]

"""Options that several verbs share, and what their words mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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


@Parameter(name="*")
@dataclass(frozen=True)
class Data:
    """Which items to measure on.

    Attributes:
        data: Folder of the data set in its published layout; not needed for the miniature world.
        split: Of the data set; else the one that is published for testing.
        limit: Take so many items only.
        allow_missing: Leave out items whose files are not there, and count them.
    """

    data: Path | None = None
    split: str | None = None
    limit: int | None = None
    allow_missing: bool = False


@Parameter(name="*")
@dataclass(frozen=True)
class Engine:
    """Where shards are worked on.

    Attributes:
        engine: here: in this process. ray: by several workers, on this machine or on the Ray cluster at RAY_ADDRESS.
        workers: Processes, with --engine ray; 2 unless given.
        cpus_per_worker: Cores for each worker, and threads it computes with; 1 unless given.
        gpus_per_worker: GPUs for each worker, such as 1 or 0.5; none unless given.
    """

    engine: Literal["here", "ray"] = "here"
    workers: int | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None

    def keywords(self) -> dict[str, Any]:
        """Give the options that were given, as keywords of `cmcr.embed`.

        Raises:
            ConfigError: options of workers without --engine ray.
        """
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if len(given) > 1 and self.engine != "ray":
            raise ConfigError(f"--{list(given)[1].replace('_', '-')} is for --engine ray.")
        return given


def settings_of(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE, values as JSON: numbers, true, false, null; anything else is a word.

    Raises:
        ConfigError: no `=`, or a name given twice.
    """
    settings: dict[str, Any] = {}
    for name, text in _named(pairs, "--set", "NAME=VALUE, such as epochs=10").items():
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        settings[name] = tuple(value) if isinstance(value, list) else value
    return settings


def models_of(pairs: Sequence[str] | None) -> dict[str, str]:
    """Read SPACE=MODEL: models by the space's name; raises as `settings_of`."""
    return _named(pairs, "--model", "SPACE=MODEL, such as ulip=pointbert.pt")


def _named(pairs: Sequence[str] | None, option: str, expected: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs or ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{option}: expected {expected}, got {pair!r}.")
        if name in found:
            raise ConfigError(f"{option}: expected every name once, got {name!r} twice.")
        found[name] = value
    return found


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

"""What a run writes into a memory: its plan, and what another plan differs in."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cmcr._version import __version__
from cmcr.errors import ResumeError
from cmcr.memories.layout import RUN, Origin, Run, record

_HASH = re.compile("[0-9a-f]{16,}")
_LIBRARIES = ("torch", "numpy", "pillow", "soundfile", "soxr", "transformers")


def versions_here() -> dict[str, str]:
    """Say which versions, of the libraries that decide about the numbers in a memory, are installed."""
    found = {"cmcr": __version__}
    for library in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


@dataclass(frozen=True)
class Plan:
    """What a run writes; a run that was stopped is gone on with only under the same plan.

    Attributes:
        origin: what makes the rows.
        run: the list of items.
        first_shard: number of the run's first shard.
    """

    origin: Origin
    run: Run
    first_shard: int


def read_plan(path: Path) -> Plan:
    """Read the plan of a run.

    Raises:
        OSError: it is not there, or the system refuses to read it.
        ValueError, KeyError, TypeError: it is damaged.
    """
    given = json.loads(path.read_bytes())
    return Plan(record(Origin, given["origin"]), record(Run, given["run"]), int(given["first_shard"]))


def check_same_plan(folder: Path, earlier: Plan, now: Plan, *, finished: bool) -> None:
    """Refuse to go on under another plan.

    Args:
        folder: of the memory.
        earlier: under which it was begun.
        now: under which it shall be gone on with.
        finished: whether the memory is whole.

    Raises:
        ResumeError: saying everything that differs.
    """
    was = {**asdict(earlier.origin), **asdict(earlier.run)}
    asked = {**asdict(now.origin), **asdict(now.run)}
    names = {
        "items": "number of items",
        "digest": "list of items (their ids, texts and sizes)",
        "fingerprint": "fingerprint (of weights and preprocessing)",
        "shard_items": "items a shard (shard_items)",
    }
    differing = [name for name in was if was[name] != asked[name]]
    if not differing:
        return
    said = "; ".join(_difference(names.get(name, name), was[name], asked[name]) for name in differing)
    if finished:
        same = earlier.origin == now.origin  # of another kind, nothing can be added
        other = "choose another folder, or add what is new with --append" if same else "or choose another folder"
        advice = f"Run it as it was made, {other}."
    elif now.first_shard:  # the folder holds a finished memory, which nobody shall be told to remove
        advice = f"Run it as it was begun, or remove {folder / RUN}, which gives up only what was being appended."
    else:
        advice = "Run it as it was begun, choose another folder, or remove this one to begin anew."
    raise ResumeError(f"{folder}: {'made' if finished else 'begun'} with something else: {said}. {advice}")


def check_same_origin(folder: Path, was: Origin, now: Origin) -> None:
    """Refuse to add rows of another kind to a memory.

    Raises:
        ResumeError: saying what differs.
    """
    differing = [name for name in asdict(was) if getattr(was, name) != getattr(now, name)]
    if differing:
        said = "; ".join(_difference(name, getattr(was, name), getattr(now, name)) for name in differing)
        raise ResumeError(f"{folder}: the memory is of another kind: {said}. Choose another folder.")


def _difference(name: str, was: object, now: object) -> str:
    if isinstance(was, dict) and isinstance(now, dict):
        changed = [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]
        return "versions: " + ", ".join(f"{key} was {was.get(key)}, now {now.get(key)}" for key in changed)
    return f"{name} was {_short(was)}, now {_short(now)}"


def _short(value: object) -> str:
    """Show a value; of a hash, enough to tell it from another."""
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if _HASH.fullmatch(text) else text

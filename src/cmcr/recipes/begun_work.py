"""Work for a connection that was begun and not finished: what of it is there, and whether it stands in the way."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cmcr.connection.checkpoint import FORMAT, LOCK, VERSION, unfinished
from cmcr.errors import CmcrError, LockedError, words_of
from cmcr.files import MANIFEST, locked, parsed_manifest


@dataclass(frozen=True)
class BegunWork:
    """What is in the folder of unfinished work.

    Attributes:
        problems: why connecting would be refused.
        notes: what is worth knowing.
        kept: bytes of semantically consistent rows, by side.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    kept: Mapping[str, int] = field(default_factory=dict)


def begun_work(connection: Path) -> BegunWork:
    """Look for unfinished work beside where a connection will be; whether it is of the same rows is not looked at."""
    folder = unfinished(connection)
    if not folder.exists():
        return BegunWork()
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
    if names and not names & {MANIFEST, LOCK}:
        return BegunWork([f"{folder}: unfinished work would be kept here, and something else is here. Move it away."])
    if _is_held(folder):
        return BegunWork([f"{folder}: another run is at work there. Wait until it ends, or choose another out."])
    if MANIFEST not in names:
        return BegunWork()
    try:
        parsed_manifest(folder, FORMAT, VERSION)
    except (CmcrError, OSError) as error:
        return BegunWork([f"{words_of(error)} Move it away, or choose another out."])
    kept = {side: sum(part.stat().st_size for part in _parts(folder, side)) for side in ("left", "right")}
    note = (
        f"stopped work is there, {folder}, and will be gone on with if it is of the same memories, settings and seed; the "
        "operations and times here are those from the beginning"
    )
    return BegunWork(notes=[note], kept=kept)


def _parts(folder: Path, side: str) -> list[Path]:
    return list(folder.glob(f"{side}-consistent-*.safetensors"))


def _is_held(folder: Path) -> bool:
    if not (folder / LOCK).is_file():
        return False
    try:
        with contextlib.suppress(OSError), locked(folder / LOCK, "held"):
            pass
    except LockedError:
        return True
    return False

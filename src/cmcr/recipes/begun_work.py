"""Work for a connection that was begun and not finished: what of it is there, and whether it stands in the way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open

from cmcr.connection.checkpoint import FORMAT, LOCK, VERSION, refuse_strangers, unfinished
from cmcr.errors import CmcrError, FormatError, LockedError, words_of
from cmcr.files import MANIFEST, locked, parsed_manifest, read_manifest


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


def begun_work(connection: Path, *, anew: bool = False) -> BegunWork:
    """Look for unfinished work beside where a connection will be; whether it is of the same rows is not looked at.

    Args:
        connection: its folder.
        anew: the state of a training will be dropped, and need not be whole.
    """
    folder = unfinished(connection)
    if not folder.exists():
        return BegunWork()
    try:
        refuse_strangers(folder)
        if _is_held(folder):
            return BegunWork([f"{folder}: another run is at work there. Wait until it ends, or choose another out."])
        if not (folder / MANIFEST).exists():
            return BegunWork()
        manifest = parsed_manifest(folder, FORMAT, VERSION)
        if not anew:
            read_manifest(folder, FORMAT, VERSION, set(manifest["sha256"]))
        kept = {side: _kept_bytes(folder, side) for side in ("left", "right")}
    except (CmcrError, OSError, SafetensorError) as error:
        return BegunWork([f"{words_of(error)} Move {folder} away, or choose another out."])
    if anew:
        then = "its state dropped, and trained anew from its rows if these are of the same memories and semantic consistency"
    else:
        then = "gone on with if it is of the same memories, settings and seed"
    note = f"stopped work is there, {folder}, and will be {then}; the operations and times here are those from the beginning"
    return BegunWork(notes=[note], kept=kept)


def _kept_bytes(folder: Path, side: str) -> int:
    """Count the bytes of rows that are kept; their values are not looked at.

    Raises:
        SafetensorError: a file was cut short.
    """
    parts = list(folder.glob(f"{side}-consistent-*.safetensors"))
    for part in parts:
        with safe_open(part, framework="pt"):
            pass
    return sum(part.stat().st_size for part in parts)


def _is_held(folder: Path) -> bool:
    """Tell whether another run holds the lock.

    Raises:
        OSError: it cannot be held at all.
    """
    lock = folder / LOCK
    if not os.path.lexists(lock):
        return False
    if not lock.is_file():
        raise FormatError(f"{lock}: expected the file of a lock, got something else.")
    try:
        with locked(lock, "held"):
            return False
    except LockedError:
        return True

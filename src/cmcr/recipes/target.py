"""Can a connection be written to a place? Told before hours of work."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cmcr.connection.artefact import FORMAT
from cmcr.connection.checkpoint import unfinished
from cmcr.errors import ArtefactError, FormatError, WriteError, words_of
from cmcr.files import MANIFEST, artefact_kind, check_target
from cmcr.memories.layout import PLAN, RUN

LONGEST_NAME = 200
"""Bytes of a connection's name: while it is written, 55 more stand around it, and file systems allow 255."""


def check_place(out: Path) -> None:
    """Make sure that a connection can be written, and its unfinished work kept beside it.

    Raises:
        WriteError: its name is too long, something else is there or among its parents, or nothing may be written there.
    """
    try:
        _check(out)
    except ArtefactError:  # some are OSErrors too: already said
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(error.errno or errno.EIO, f"could not look there ({reason})", str(out)) from error


def in_the_way(out: Path) -> list[str]:
    """Say why a connection cannot be written, as `check_place` does; empty where it can."""
    try:
        check_place(out)
    except ArtefactError as error:
        return [words_of(error)]
    return []


def _check(out: Path) -> None:
    kept = unfinished(out)
    whole = kept.parent / kept.name.removesuffix(".unfinished")
    if len(os.fsencode(whole.name)) > LONGEST_NAME:
        raise WriteError(
            f"{whole}: its name is longer than {LONGEST_NAME} bytes, which leaves no room for the names of what is written "
            "beside it. Choose a shorter one."
        )
    _check_parents(whole)
    check_target(out, FORMAT)
    if os.path.lexists(kept) and not kept.exists():
        raise WriteError(
            f"{kept}: unfinished work would be kept here, and a link that leads nowhere is here. Remove it."
        )
    nearest = next(folder for folder in whole.parents if folder.exists())
    for folder in (nearest, kept):
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            raise WriteError(f"{folder}: nothing can be written here (no permission, or a read-only disk).")


def _check_parents(whole: Path) -> None:
    for folder in whole.parents:
        if os.path.lexists(folder) and not folder.is_dir():
            raise WriteError(f"{whole}: its parent {folder} is there and is no folder. Choose another path.")
        if kind := _artefact(folder):
            raise WriteError(f"{whole}: it would be within {folder}, which is a {kind}. Choose a path outside.")


def _artefact(folder: Path) -> str | None:
    """Tell which artefact of ours a folder is; None for any other."""
    if (folder / RUN / PLAN).is_file():
        return "cmcr memory"
    if not (folder / MANIFEST).is_file():
        return None
    try:
        kind = artefact_kind(folder)
    except (FormatError, OSError):
        return None
    return kind if kind.startswith("cmcr ") else None

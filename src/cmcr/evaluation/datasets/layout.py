"""How a data set lies on the disk as its authors publish it, and what is said where something of it is missing."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmcr.data.paths import reading
from cmcr.errors import ArtefactNotFoundError, ConfigError, FormatError, unknown_name

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")
VIDEOS = (".mp4", ".mov", ".webm", ".mkv", ".avi")

_NAMED = 3  # missing files that a message names


@dataclass(frozen=True)
class Request:
    """What of a data set is asked for.

    Args:
        split: one of the data set's splits; `None` takes its first.
        allow_missing: leave out items whose files are not there, and count them.
        limit: at most so many items, evenly spaced over the whole; `None` takes all.

    Raises:
        ConfigError: a limit below 1.
    """

    split: str | None = None
    allow_missing: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit: expected at least 1, got {self.limit}.")


@dataclass(frozen=True)
class Layout:
    """What a data set is called, of what it is, where it is published, and how its folder looks.

    Args:
        name: in `read_dataset`.
        modalities: that are compared; of labelled items, classes are in words.
        source: the paper or page that publishes it, to complete "It is published by ...".
        tree: the files that are read, a line each.
        splits: what `split` may be; the first is taken where none is asked for.
    """

    name: str
    modalities: tuple[str, str]
    source: str
    tree: str
    splits: Sequence[str]

    def split(self, request: Request) -> str:
        """Tell which split is asked for.

        Raises:
            ConfigError: one that the data set does not have.
        """
        if request.split is not None and request.split not in self.splits:
            raise unknown_name(f"split of {self.name}", request.split, self.splits)
        return self.splits[0] if request.split is None else request.split

    def called(self, split: str) -> str:
        """Name the data set with its split."""
        return f"{self.name}/{split}"

    def find(self, folder: Path, *places: str) -> Path:
        """Find a file or folder of the layout: the first of the places where it may lie.

        Raises:
            ArtefactNotFoundError: it lies in none of them.
        """
        with reading(folder):
            for place in places:
                if (folder / place).exists():
                    return folder / place
        raise self.missing(folder, f"{' or '.join(places)} is not there")

    def missing(self, folder: Path, what: str) -> ArtefactNotFoundError:
        """Build the error for a layout of which something is not there."""
        said = what if folder.exists() else "there is no such folder"
        return _not_found(
            folder,
            f"{said}. The layout of {self.name} is\n{self.tree}\nIt is published by {self.source}; docs/datasets.md says "
            "more. The data set is not whole",
        )

    def kept(self, folder: Path, request: Request, wanted: Sequence[str], there: Sequence[bool]) -> list[int]:
        """Choose the items to use: those that are there, and of these at most `limit`, evenly spaced.

        Args:
            folder: of the data set.
            request: what is asked for.
            wanted: for each item that the annotations name, its files as the layout names them.
            there: whether they are.

        Returns:
            Rows of `wanted`, rising.

        Raises:
            ArtefactNotFoundError: an item is not there, unless that is allowed; or none is.
        """
        if not wanted:
            raise FormatError(f"{folder}: the annotations of {self.name} name no items.")
        found = [row for row, one in enumerate(there) if one]
        absent = [name for name, one in zip(wanted, there, strict=True) if not one]
        if absent and not (request.allow_missing and found):
            raise self._absent(folder, absent, len(wanted))
        limit = len(found) if request.limit is None else min(request.limit, len(found))
        return [found[step * len(found) // limit] for step in range(limit)]

    def _absent(self, folder: Path, absent: Sequence[str], total: int) -> ArtefactNotFoundError:
        named = ", ".join(absent[:_NAMED]) + (", ..." if len(absent) > _NAMED else "")
        if len(absent) == total:
            return self.missing(folder, f"none of the {total} items that the annotations name is there ({named})")
        return _not_found(
            folder,
            f"{len(absent)} of the {total} items that the annotations of {self.name} name are not there: {named}. Sets from "
            "YouTube are never complete: allow_missing leaves such items out and counts them. The data set is not whole",
        )


def files_by_stem(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """List the files of a folder by their name without its ending; hidden ones, such as archives of macOS bring, are none.

    Where two differ in the ending alone, the ending that comes first in `endings` wins.

    Raises:
        ReadError: the system refuses to list the folder.
    """
    found: dict[str, Path] = {}
    with reading(folder), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    for ending in reversed(endings):
        found |= {Path(name).stem: folder / name for name in sorted(names) if Path(name).suffix.lower() == ending}
    return found


def _not_found(folder: Path, message: str) -> ArtefactNotFoundError:
    return ArtefactNotFoundError(errno.ENOENT, message, str(folder))

"""How a data set is published, a folder that holds one, and readers of annotation files; errors name the file and entry."""

from __future__ import annotations

import codecs
import csv
import errno
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from cmcr.data.texts import read_lines
from cmcr.errors import ArtefactNotFoundError, FormatError
from cmcr.evaluation.datasets.records import Record
from cmcr.files import reading

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")
VIDEOS = (".mp4", ".mov", ".webm", ".mkv", ".avi")

Box = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]

_NAMED = 3  # missing files that a message names

LabelT = TypeVar("LabelT")
KindT = TypeVar("KindT")


@dataclass(frozen=True)
class Layout:
    """A data set as its authors publish it.

    Args:
        name: in `read_dataset`.
        modalities: that are compared; classes are text.
        splits: the first is the default.
        description: who publishes it, and the files that are read; shown where one is missing.
        read: reads the data set from a folder of this layout.
    """

    name: str
    modalities: tuple[str, str]
    splits: Sequence[str]
    description: str
    read: Callable[[DataFolder], Record]


def published_as(
    name: str, modalities: tuple[str, str], splits: Sequence[str]
) -> Callable[[Callable[[DataFolder], Record]], Layout]:
    """Make a reader the `Layout` of a data set, described by the docstring of the reader."""
    return lambda read: Layout(name, modalities, splits, inspect.getdoc(read) or "", read)


class Item(NamedTuple, Generic[LabelT]):
    """One item that the annotations name.

    Attributes:
        id: unique in the data set.
        files: its files as the layout names them, for messages.
        content: what a record holds of it: a file, a picture with its sound, an array; `None` where a file is missing.
        label: what the annotations say of it: captions, a class, boxes.
    """

    id: str
    files: str
    content: Any
    label: LabelT


@dataclass(frozen=True)
class DataFolder:
    """A folder that holds a data set, and what to read of it.

    Args:
        layout: how the data set is published.
        path: the folder.
        split: one of the layout's.
        allow_missing: leave out items whose files are missing, and count them.
        limit: at most so many items, evenly spaced over all; `None` for all.
    """

    layout: Layout
    path: Path
    split: str
    allow_missing: bool = False
    limit: int | None = None

    @property
    def name(self) -> str:
        """Name of the data set with its split."""
        return f"{self.layout.name}/{self.split}"

    def find(self, *candidates: str) -> Path:
        """Find a file or folder of the layout: the first of the candidates that exists.

        Raises:
            ArtefactNotFoundError: none exists; the message shows the layout.
        """
        with reading(self.path):
            for candidate in candidates:
                if (self.path / candidate).exists():
                    return self.path / candidate
        raise self._missing(f"{' or '.join(candidates)} is missing")

    def item(self, id: str, path: Path, label: LabelT) -> Item[LabelT]:
        """Describe an item that is one file of this folder."""
        return Item(id, os.path.relpath(path, self.path), existing(path), label)

    def keep(self, items: Sequence[Item[LabelT]], left_out: int = 0) -> tuple[list[str], list[Any], list[LabelT], int]:
        """Choose the items to use: those whose files exist, at most `limit` of them, evenly spaced.

        Args:
            items: all that the annotations name.
            left_out: how many were left out before, for other reasons.

        Returns:
            Ids, contents and labels of the items, and how many were left out in all, not counting those beyond the limit.

        Raises:
            FormatError: the annotations name no items.
            ArtefactNotFoundError: files are missing and that is not allowed, or all are.
        """
        if not items:
            raise FormatError(f"{self.path}: the annotations of {self.layout.name} name no items.")
        found = [item for item in items if item.content is not None]
        missing = [item.files for item in items if item.content is None]
        named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
        if not found:
            raise self._missing(f"none of the {len(items)} items that the annotations name exists ({named})")
        if missing and not self.allow_missing:
            raise self._not_found(
                f"files of {len(missing)} of the {len(items)} items of {self.layout.name} are missing: {named}. Sets from "
                "YouTube are never complete: allow_missing leaves such items out and counts them"
            )
        limit = len(found) if self.limit is None else min(self.limit, len(found))
        kept = [found[step * len(found) // limit] for step in range(limit)]
        labels = [item.label for item in kept]
        return [item.id for item in kept], [item.content for item in kept], labels, left_out + len(missing)

    def _missing(self, what: str) -> ArtefactNotFoundError:
        problem = what if self.path.exists() else "no such folder"
        return self._not_found(
            f"{problem}. Layout of {self.layout.name}:\n{self.layout.description}\ndocs/datasets.md has details"
        )

    def _not_found(self, message: str) -> ArtefactNotFoundError:
        return ArtefactNotFoundError(errno.ENOENT, f"{message}. Incomplete data set", str(self.path))


def existing(path: Path) -> Path | None:
    """Return the path of a file that exists."""
    return path if path.is_file() else None


def files_by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """List the files of a folder by their name without its suffix, hidden ones (as macOS adds to archives) excluded.

    Where two differ only in the suffix, the one that comes first in `suffixes` wins.

    Raises:
        ReadError: the folder cannot be listed.
    """
    found: dict[str, Path] = {}
    with reading(folder), os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith("."))
    for suffix in reversed(suffixes):
        found |= {Path(name).stem: folder / name for name in names if Path(name).suffix.lower() == suffix}
    return found


def read_json(path: Path, kind: type[KindT]) -> KindT:
    """Read a JSON file whose content must be of a type, such as `list[Entry]` with a dataclass; other keys are ignored.

    Raises:
        FormatError: not JSON, or of another type, with the first entry that does not fit.
        ReadError: the file cannot be read.
    """
    with reading(path):
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        return TypeAdapter(kind).validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        entry = f" at {'.'.join(map(str, first['loc']))}" if first["loc"] else ""
        raise FormatError(f"{path}{entry}: {first['msg']}, got {first['input']!r:.100}.") from error


def read_csv(path: Path, *columns: str, header: bool = True) -> list[list[str]]:
    """Read columns of a CSV file; blank lines are no rows.

    Args:
        path: the file.
        columns: to read, in this order.
        header: the first row names the columns; without, `columns` are the first cells of each row, and others are ignored.

    Raises:
        FormatError: not a CSV file, a missing column, or a row of another length, with its number (the header not counted).
        SampleError: not UTF-8.
        ReadError: the file cannot be read.
    """
    try:
        rows = list(csv.reader((f"{line}\n" for line in read_text_lines(path)), strict=True))
    except csv.Error as error:
        raise FormatError(f"{path}: not a CSV file ({error}); are its quotes closed? Fetch it again.") from error
    names = (rows.pop(0) if rows else []) if header else list(columns)
    if not set(columns) <= set(names):
        raise FormatError(f"{path}: expected the columns {', '.join(columns)}, got {', '.join(names)}.")
    for number, row in enumerate(rows, start=1):
        if len(row) < len(names) or (header and len(row) > len(names)):
            raise FormatError(f"{path} row {number}: expected {len(names)} cells, got {row}.")
    return [[row[names.index(column)] for column in columns] for row in rows]


def read_text_lines(path: Path) -> list[str]:
    """Read the lines of a text file that hold more than white space.

    Raises:
        SampleError: not UTF-8.
        ReadError: the file cannot be read.
    """
    with reading(path):
        return [line for line in read_lines(path, "annotation file") if line.strip()]


def clipped(boxes: ArrayLike) -> NDArray[np.float64]:
    """Clip boxes `(b, 4)`, shares of the picture as left, top, right, bottom, to the picture; drop those left empty."""
    given = np.clip(np.asarray(boxes, dtype=np.float64).reshape(-1, 4), 0.0, 1.0)
    return given[(given[:, 2:] > given[:, :2]).all(axis=1)]

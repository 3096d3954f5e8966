r"""Lists of items, and the simplest of them: files as items, those of a folder or a pattern, or one alone.

Lists can be linked any number of times, and are never held in memory as a whole. Files are ordered by their relative paths,
written with `/` and compared by code points, on every file system and in every locale. Each folder is sorted by itself,
subfolders by their names with a `/`: the order is that of all paths sorted, but no more than the names of one folder on each
level are held.
"""

from __future__ import annotations

import errno
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cmcr.data.meshes import MESH_SUFFIXES
from cmcr.data.paths import file_of
from cmcr.data.point_clouds import POINT_SUFFIXES
from cmcr.data.texts import decode_utf8
from cmcr.errors import ConfigError, SampleError
from cmcr.files import reading

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
ENDINGS_OF = {
    "image": tuple(
        ".jpg .jpeg .jpe .jfif .png .apng .gif .webp .bmp .dib .tif .tiff .ppm .pgm .pbm .pnm .tga .jp2 .avif".split()
    ),
    "text": (".txt",),
    "audio": tuple(".wav .flac .ogg .oga .opus .mp3 .aif .aiff .au .caf .m4a .mp4 .mov .webm .mkv .mka .avi".split()),
    "point_cloud": (*(ending for ending in POINT_SUFFIXES if ending not in TABLE_ENDINGS), *MESH_SUFFIXES),
}
"""The endings that are taken from folders and tar files for each modality, in small letters."""

_DEEPEST = 200  # folders within each other
_MOST_LINKED = 100  # times that links may lead into one folder
_MAGIC = re.compile(r"[*?\[]")
_ANY_DEPTH = "**"


_Inode = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to embed, before its content is read.

    Args:
        id: the same on every machine and day, and unique in the list.
        source: where it came from: a relative path with `/`, then `:` and a row number if it lies in a table. Never absolute.
        mark: the part of its content that enters the hash of the list: all of it where it stands in the list itself, the
            size of a member of an archive, nothing of a file.
        read: gives what a space reads: a path, a string, bytes or `NamedBytes`; a `SampleError` (not raised) where the item
            cannot be read. Valid until the walk moves on: a tar file is read in one direction.
        cells: of a row of a table that is read whole, all cells by the names of their columns; else None.
    """

    id: str
    source: str
    mark: bytes
    read: Callable[[], Any]
    cells: Mapping[str, Any] | None = None


class ItemList(ABC):
    """Items in a stable order, which can be linked any number of times.

    Attributes:
        description: what it is, for messages: "folder photos (image files)".
        ignored: endings of files that were passed over and how many files, as the latest walk found them.
    """

    description: str
    ignored: Mapping[str, int] = MappingProxyType({})

    @property
    def root(self) -> Path | None:
        """The folder that ids begin from, absolute, where they are paths of files; None elsewhere."""
        return None

    def walk(self) -> Generator[Entry, None, None]:
        """Give the entries in order.

        Raises:
            ConfigError: there are none.
            ReadError: the system refuses to read the list, it is gone or damaged.
        """
        empty = True
        for entry in self._entries():
            empty = False
            yield entry
        if empty:
            raise self._nothing()

    @abstractmethod
    def _entries(self) -> Iterator[Entry]:
        """Give the entries in order, and start the count of `ignored` again."""

    @abstractmethod
    def _nothing(self) -> ConfigError:
        """Build the error for a list without items: what was expected, what is there instead, what to do."""


@dataclass(frozen=True)
class Selection:
    """Files in and below a folder; the folder is listed again on every walk.

    Hidden files and folders (`.name`) are passed over unless the pattern names them. Links to folders are followed, but
    not into a folder that is being linked already. Folders nested too deep, and links that lead into one folder again and
    again, are refused: there is no end to what they list.

    Args:
        root: the folder to begin in, or one file.
        pattern: the parts of what to take below it, such as `("**", "*.jpg")`, by default everything; empty where `root` is
            the one file. `**` is any number of folders; as the last part, every file below. Capitals count everywhere.
    """

    root: Path
    pattern: tuple[str, ...] = (_ANY_DEPTH,)

    def __iter__(self) -> Iterator[tuple[str, Path]]:
        """Give the relative path with `/`, and the path.

        Raises:
            ReadError: a folder is gone, may not be read, or has no end.
        """
        if not self.pattern:
            yield self.root.name, self.root
            return
        for relative in _walk(self.root, "", {self.pattern}, (), Counter()):
            yield relative, self.root / relative


def selection_of_pattern(given: Path) -> Selection | None:
    """Split a path with `*`, `?`, `[` or `**` into its fixed folder and its pattern; `None` where it has none of these."""
    parts = given.parts
    first = next((place for place, part in enumerate(parts) if _MAGIC.search(part)), None)
    return None if first is None else Selection(Path(*parts[:first]), parts[first:])


@dataclass
class SelectedItems(ItemList):
    """Items in the files of a selection.

    Args:
        selection: the files.
        modality: what the items are.
        description: for messages.
    """

    selection: Selection
    modality: str
    description: str

    def _nothing(self) -> ConfigError:
        found = Counter(self.ignored).most_common()
        return ConfigError(
            f"{self.description}: expected files ending in {', '.join(ENDINGS_OF[self.modality])}; got "
            f"{', '.join(f'{ending} ({count})' for ending, count in found) or 'no files that are not hidden'}. Choose other "
            "files or another modality; name lists and tar files themselves, or by a pattern such as '*.tar'."
        )


class FileItems(SelectedItems):
    """Each file with an ending of the modality is one item; its id is its relative path."""

    @property
    def root(self) -> Path:
        """The folder that is walked, that of a single file, or the fixed part of a pattern."""
        root = self.selection.root
        return Path(os.path.abspath(root if self.selection.pattern else root.parent))  # noqa: PTH100 - keeps links

    def _entries(self) -> Iterator[Entry]:
        self.ignored = ignored = Counter[str]()
        for relative, path in self.selection:
            ending = ending_of(relative)
            if ending not in ENDINGS_OF[self.modality]:
                ignored[ending or "no ending"] += 1
                continue
            name = as_id(relative)
            # No mark, not even the size: a run that was stopped must resume after a broken file was fixed.
            yield Entry(name, name, b"", partial(self._read, path, name))

    def _read(self, path: Path, name: str) -> Any:
        if self.modality != "text":
            return path
        try:
            return text_of(file_of(path, "text file").read_bytes(), name)
        except (OSError, SampleError):
            return SampleError(f"{name}: the text file cannot be read: it is gone, not a file, or without permission.")


def ending_of(name: str) -> str:
    """The ending of a name, in small letters with its dot; empty where there is none."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path for each of millions of names costs a minute


def _walk(
    folder: Path, prefix: str, patterns: set[tuple[str, ...]], above: tuple[_Inode, ...], linked: Counter[_Inode]
) -> Iterator[str]:
    """Give the relative paths below a folder that match any of some patterns."""
    with reading(folder):
        about = folder.stat()
        here = (about.st_dev, about.st_ino)
        if about.st_ino and here in above:  # some network drives number nothing
            return
        linked[here] += folder.is_symlink()
        if len(above) > _DEEPEST or linked[here] > _MOST_LINKED:
            raise OSError(
                errno.ELOOP, f"nested over {_DEEPEST} deep, or linked to over {_MOST_LINKED} times", str(folder)
            )
        with os.scandir(folder) as entries:
            names = sorted(entry.name + "/" * _is_folder(entry) for entry in entries)
    for name in names:
        left = {rest for pattern in patterns for rest in _rests(pattern, name.removesuffix("/"))}
        if name.endswith("/"):
            if any(left):
                yield from _walk(folder / name, prefix + name, left, (*above, here), linked)
        elif any(set(rest) <= {_ANY_DEPTH} for rest in left):
            yield prefix + name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: an item that cannot be read
        return False


def _rests(pattern: tuple[str, ...], name: str) -> Iterator[tuple[str, ...]]:
    """Give what remains of a pattern once its beginning has matched the name of a file or folder."""
    if not pattern:
        return
    first, rest = pattern[0], pattern[1:]
    hidden = name.startswith(".")
    if first == _ANY_DEPTH:
        yield from _rests(rest, name)  # `**` may stand for no folder at all
        if not hidden:
            yield pattern
    elif fnmatchcase(name, first) and (not hidden or first.startswith(".")):
        yield rest


def as_id(name: str) -> str:
    r"""Make a name writable as UTF-8: bytes of it that are not become escapes such as `\udce9`."""
    return name.encode(errors="backslashreplace").decode()


def text_of(content: bytes, name: str) -> str | SampleError:
    """Decode a file that is one text, without the line end that editors add at its end."""
    try:
        return decode_utf8(content, name).removesuffix("\n").removesuffix("\r")
    except SampleError as error:
        return error

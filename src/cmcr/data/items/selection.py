r"""Files of a folder that a pattern selects, in an order that is the same everywhere.

The order is that of the relative paths, written with `/` and compared by code points, whatever the file system, the
locale or the day says. Each folder is sorted on its own, a folder's name with its `/`: this gives the same order as
sorting all paths, and never holds more than the names of one folder on each level.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cmcr.data.items.reading import reading

_MAGIC = re.compile(r"[*?\[]")
_ANY_DEPTH = "**"


@dataclass(frozen=True)
class Selection:
    """Files to be found anew on every walk.

    Hidden files and folders (`.name`) are passed over unless the pattern names them. Links to folders are followed, but
    not into a folder that is being walked already.

    Args:
        root: the folder to begin in, or one file.
        pattern: the parts of a pattern below it, such as `("**", "*.jpg")`; `None` where `root` is the one file. `**` is
            any number of folders; as the last part, every file below. Capitals count on every system.
    """

    root: Path
    pattern: tuple[str, ...] | None

    def __iter__(self) -> Iterator[tuple[str, Path]]:
        """Give the relative path with `/`, and the path.

        Raises:
            ReadError: a folder is gone or may not be read.
        """
        if self.pattern is None:
            yield self.root.name, self.root
            return
        pattern = _Pattern(self.pattern)
        for relative in _walk(self.root, "", pattern, pattern.beginning, ()):
            yield relative, self.root / relative


def everything_below(folder: Path) -> Selection:
    """Select all files of a folder and of the folders in it."""
    return Selection(folder, (_ANY_DEPTH,))


def selection_of_pattern(given: Path) -> Selection | None:
    """Split a path with `*`, `?`, `[` or `**` into its fixed folder and its pattern; `None` where it has none of these."""
    parts = given.parts
    first = next((place for place, part in enumerate(parts) if _MAGIC.search(part)), None)
    return None if first is None else Selection(Path(*parts[:first]), parts[first:])


class _Pattern:
    """A pattern of folders and a file as a small automaton: its states are places before the parts of the pattern."""

    def __init__(self, parts: tuple[str, ...]) -> None:
        self._parts = [None if part == _ANY_DEPTH else (part, re.compile(fnmatch.translate(part))) for part in parts]
        self.beginning = self._with_skips({0})

    def after(self, states: frozenset[int], name: str) -> frozenset[int]:
        reached: set[int] = set()
        hidden = name.startswith(".")
        for state in states - {len(self._parts)}:
            part = self._parts[state]
            if part is None:
                reached |= set() if hidden else {state}
            elif part[1].match(name) and (not hidden or part[0].startswith(".")):
                reached.add(state + 1)
        return self._with_skips(reached)

    def is_end(self, states: frozenset[int]) -> bool:
        return len(self._parts) in states

    def goes_on(self, states: frozenset[int]) -> bool:
        return any(state < len(self._parts) for state in states)

    def _with_skips(self, states: set[int]) -> frozenset[int]:
        """Add the places behind each `**`, which may stand for no folder at all."""
        for place, part in enumerate(self._parts):
            if part is None and place in states:
                states.add(place + 1)
        return frozenset(states)


def _walk(
    folder: Path, prefix: str, pattern: _Pattern, states: frozenset[int], above: tuple[tuple[int, int], ...]
) -> Iterator[str]:
    with reading(folder):
        about = folder.stat()
        here = (about.st_dev, about.st_ino)
        if about.st_ino and here in above:  # some network drives number nothing
            return
        with os.scandir(folder) as entries:
            names = sorted(entry.name + "/" * entry.is_dir() for entry in entries)
    for name in names:
        reached = pattern.after(states, name.removesuffix("/"))
        if not name.endswith("/"):
            if pattern.is_end(reached):
                yield prefix + name
        elif pattern.goes_on(reached):
            yield from _walk(folder / name, prefix + name, pattern, reached, (*above, here))

"""Files as items: those of a folder, of a pattern, or one alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cmcr.data.items.endings import ENDINGS_OF, TABLE_ENDINGS, TAR, counted, ending_of, fits, kind_of
from cmcr.data.items.item import Entry, ItemList
from cmcr.data.items.reading import as_id, decoded
from cmcr.data.items.selection import Selection
from cmcr.data.paths import file_of
from cmcr.errors import ConfigError, SampleError


class FileItems(ItemList):
    """Each file is one item; its id is its relative path.

    Args:
        selection: the files.
        modality: what they hold.
        description: for messages.
        whatever_ending: take every file, not only those with the endings of the modality.
    """

    def __init__(self, selection: Selection, modality: str, description: str, *, whatever_ending: bool = False) -> None:
        self.description = description
        self.ignored = {}
        self._selection, self._modality, self._whatever_ending = selection, modality, whatever_ending

    def _entries(self) -> Iterator[Entry]:
        ignored: Counter[str] = Counter()
        self.ignored = ignored
        for relative, path in self._selection:
            if not self._whatever_ending and not fits(relative, self._modality):
                ignored[ending_of(relative) or "no ending"] += 1
                continue
            name = as_id(relative)
            # Without the size: who mends a broken file while a run is stopped shall be able to go on.
            yield Entry(name, name, b"", partial(self._read, path, name))

    def _read(self, path: Path, name: str) -> Any:
        if self._modality != "text":
            return path
        try:
            return decoded(file_of(path, "text file").read_bytes(), name)
        except (OSError, SampleError):
            return SampleError(f"{name}: the text file cannot be read; it is gone, no file, or may not be read.")

    def _nothing(self) -> ConfigError:
        expected = f"{self.description}: expected files ending in {', '.join(ENDINGS_OF[self._modality])}"
        if not self.ignored:
            return ConfigError(f"{expected}; got no files that are not hidden. Check the path.")
        hint = "Choose another folder or modality."
        listed = next((ending for ending in self.ignored if ending in TABLE_ENDINGS or kind_of(ending) == TAR), None)
        if listed:
            hint = f"For the items that those files list or hold, give the pattern '{self._selection.root.name}/*{listed}'."
        return ConfigError(f"{expected}; got {counted(self.ignored)}. {hint}")

"""A memory that lies in its own input must not become its own items."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from cmcr.data.items import ItemList, TarItems, selection_of_pattern
from cmcr.errors import ConfigError
from cmcr.files import MANIFEST
from cmcr.memories.layout import embeddings_file, items_file, quarantine_file, shard_name

_OWN = (MANIFEST, *(name(shard_name(0)) for name in (embeddings_file, items_file, quarantine_file)))


def refuse_own_files(inputs: str | Path | ItemList, items: ItemList, out: Path) -> None:
    """Make sure that the list of items does not grow by the files of the memory.

    A folder of pictures, sounds, clouds or texts may hold the memory: no file of a memory ends like one of those. A
    pattern takes whatever matches, and a folder of tar files must hold nothing else.

    Args:
        inputs: what the user gave.
        items: what it was opened as.
        out: folder of the memory.

    Raises:
        ConfigError: it would.
    """
    if isinstance(inputs, ItemList):
        return
    given = Path(inputs)
    if given.is_dir():
        root, takes = given, isinstance(items, TarItems)
    else:
        pattern = None if given.exists() else selection_of_pattern(given)
        if pattern is None or pattern.pattern is None:
            return
        last = pattern.pattern[-1]
        root, takes = pattern.root, last == "**" or any(fnmatchcase(name, last) for name in _OWN)
    if takes and out.resolve().is_relative_to(root.resolve()):
        raise ConfigError(
            f"{out}: lies in the input {given}, which would take its files for items. Choose another folder."
        )

"""How long the lists of a recipe are, and how many bytes their items have: told without decoding any."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cmcr.data.items import open_items
from cmcr.data.paths import NamedBytes
from cmcr.recipes.recipe import MemoryRecipe, Recipe

_LOOKED_AT = 16  # items of a list, for their bytes and the length of their ids


@dataclass(frozen=True)
class Listed:
    """What is known of a list of items.

    Attributes:
        count: how many items there are.
        entries: ids and sources of the first of them.
        item_bytes: bytes of an item, as the mean of the first of them; None where the list is not there yet.
    """

    count: int
    entries: tuple[tuple[str, str], ...] = ()
    item_bytes: float | None = None


def listed(recipe: Recipe, part: MemoryRecipe) -> Listed:
    """Walk the list of a memory's items.

    Raises:
        ConfigError: it is not there, is empty, or is something else.
        ReadError: the system refuses to read it.
    """
    items = open_items(recipe.path(part.input), part.modality, column=part.column, id_column=part.id_column)
    sizes: list[int] = []
    entries: list[tuple[str, str]] = []
    with closing(items.walk()) as walk:
        for entry in islice(walk, _LOOKED_AT):
            entries.append((entry.id, entry.source))
            sizes.append(_size_of(entry.read, part.modality))
        count = len(entries) + sum(1 for _ in walk)
    return Listed(count, tuple(entries), sum(sizes) / len(sizes))


def _size_of(read: Callable[[], Any], modality: str) -> int:
    """Tell the bytes of an item: of the text, of the file, or of the member of an archive; 0 of what cannot be read."""
    content = read()
    if isinstance(content, NamedBytes):
        return len(content.content)
    if isinstance(content, bytes):
        return len(content)
    if modality == "text" and isinstance(content, str):
        return len(content.encode(errors="replace"))
    path = Path(content) if isinstance(content, str | Path) else None
    return path.stat().st_size if path is not None and path.is_file() else 0

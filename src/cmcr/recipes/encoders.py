"""The encoders of a recipe, opened when they are needed and only once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmcr.recipes.recipe import Recipe
from cmcr.spaces.protocol import Space
from cmcr.spaces.registry import space

_OF_THE_HUB = ("clip", "siglip", "clap")
"""Spaces that fetch their weights unless they are told not to."""


class Encoders:
    """Opens the spaces of a recipe.

    Args:
        recipe: says how.
        fetch: let spaces fetch weights that are not on this machine.
    """

    def __init__(self, recipe: Recipe, *, fetch: bool = True) -> None:
        self._recipe = recipe
        self._fetch = fetch
        self._opened: dict[str, Space] = {}

    def __getitem__(self, name: str) -> Space:
        """Open a space by the recipe's name for it.

        Raises:
            CmcrError: weights that are not there or damaged, an option that the space does not take.
        """
        if name not in self._opened:
            kind, options = space_options(self._recipe, name)
            if not self._fetch and kind in _OF_THE_HUB:
                options["local_files_only"] = True
            self._opened[name] = space(kind, **options)
        return self._opened[name]

    def all(self) -> list[Space]:
        """Open the spaces that have memories."""
        return [self[name] for name in dict.fromkeys(memory.space for memory in self._recipe.memories)]


def space_options(recipe: Recipe, name: str) -> tuple[str, dict[str, Any]]:
    """Say which space it is and with which options it is opened; a model that is a path begins from the root."""
    given = recipe.spaces[name]
    options: dict[str, Any] = dict(given.options)
    for key in ("model", "revision", "dtype"):
        if (value := getattr(given, key)) is not None:
            options[key] = value
    if given.model is not None and _is_path(recipe, given.model):
        options["model"] = str(recipe.path(given.model))
    return given.kind or name, options


def _is_path(recipe: Recipe, model: str) -> bool:
    """Tell a path from the name of a repository: it is there, or it could not be such a name."""
    return recipe.path(model).exists() or model.startswith((".", "~", "/")) or Path(model).suffix in (".pt", ".pth")

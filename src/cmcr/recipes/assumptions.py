"""What the user says about data and encoders that a plan cannot look at: numbers of items, widths, rates."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cmcr.errors import ConfigError, unknown_name
from cmcr.recipes.recipe import MemoryRecipe, Recipe
from cmcr.spaces.clip import CLIP_MODEL
from cmcr.spaces.mini.space import MINI_WIDTHS
from cmcr.spaces.siglip import SIGLIP_MODEL

Number = TypeVar("Number", int, float)

_MODELS = {"clip": CLIP_MODEL, "siglip": SIGLIP_MODEL, "clap": "laion/clap-htsat-fused"}
_OF_KINDS = {**MINI_WIDTHS, "ulip": 512}
_OF_MODELS = {
    "openai/clip-vit-base-patch32": 512,
    "openai/clip-vit-base-patch16": 512,
    "openai/clip-vit-large-patch14": 768,
    "openai/clip-vit-large-patch14-336": 768,
    "google/siglip-base-patch16-224": 768,
    "laion/clap-htsat-fused": 512,
    "laion/clap-htsat-unfused": 512,
}
"""Widths D of published models, as their configurations say. Of ULIP-2 the coloured file alone is another: 1280."""


@dataclass(frozen=True)
class Assumptions:
    """What the user says.

    Attributes:
        items: how many, by the out of a memory, its input or its modality.
        widths: width D by space.
        rates: items a second, by SPACE/MODALITY.
    """

    items: Mapping[str, int] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)

    def items_of(self, part: MemoryRecipe) -> int | None:
        """Say how many items a memory is said to have; None where nothing is said of it."""
        return next((self.items[name] for name in _names(part) if name in self.items), None)


def read_assumptions(
    recipe: Recipe,
    items: Sequence[str] = (),
    widths: Sequence[str] = (),
    rates: Sequence[str] = (),
    rates_file: Path | None = None,
) -> Assumptions:
    """Read what was written on the command line.

    Args:
        recipe: whose words they use.
        items: NAME=COUNT, NAME being the out of a memory, its input or its modality; the first of these wins.
        widths: SPACE=WIDTH.
        rates: SPACE/MODALITY=ITEMS_A_SECOND.
        rates_file: what `cmcr run --dry-run --json` has printed; `rates` win over it.

    Raises:
        ConfigError: a name that the recipe does not have (the nearest is named), or a number out of range.
    """
    memories = recipe.memories
    lists = {name for memory in memories for name in _names(memory)}
    pairs = {f"{memory.space}/{memory.modality}" for memory in memories}
    measured = _measured_rates(rates_file) if rates_file is not None else {}
    return Assumptions(
        _pairs("--items", items, lists, int),
        _pairs("--width", widths, set(recipe.spaces), int),
        {**{name: rate for name, rate in measured.items() if name in pairs}, **_pairs("--rate", rates, pairs, float)},
    )


def known_width(kind: str, model: str | None) -> int | None:
    """Tell the width of a space without opening its encoders; None of a model whose width is not known here.

    Args:
        kind: of the space, such as clip.
        model: that it is opened with; None for the space's own.
    """
    return _OF_KINDS.get(kind, _OF_MODELS.get(model or _MODELS.get(kind, "")))


def _names(memory: MemoryRecipe) -> tuple[str, str, str]:
    return memory.out, memory.input, memory.modality


def _pairs(option: str, given: Sequence[str], known: set[str], read: Callable[[str], Number]) -> dict[str, Number]:
    """Read NAME=NUMBER; a name may hold `=` itself."""
    found: dict[str, Number] = {}
    for pair in given:
        name, mark, text = pair.rpartition("=")
        if not mark:
            raise ConfigError(f"{option}: expected NAME=NUMBER, got {pair!r}.")
        if name not in known:
            raise unknown_name(f"name in {option}", name, known)
        try:
            found[name] = read(text.replace(",", ""))
        except ValueError:
            found[name] = read("0")
        if not (math.isfinite(found[name]) and found[name] > 0):
            kind = "a whole number of at least 1" if read is int else "a number above 0"
            raise ConfigError(f"{option} {name}: expected {kind}, got {text!r}.")
    return found


def _measured_rates(path: Path) -> dict[str, float]:
    """Read the rates of encoders from what a dry run has printed.

    Raises:
        ConfigError: it is something else.
    """
    try:
        rates = json.loads(path.read_text(encoding="utf-8"))["rates"]
        named = {key.removesuffix(", items/s"): float(rate) for key, rate in rates.items() if key.endswith(", items/s")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"--rates {path}: expected the output of cmcr run RECIPE --dry-run --json in a file."
        ) from error
    return {"/".join(reversed(name.split(" in ", 1))): rate for name, rate in named.items() if rate > 0}

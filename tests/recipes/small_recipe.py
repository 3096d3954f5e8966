"""A recipe of the miniature world on few items, and what the tests change in it."""

import importlib.util
from pathlib import Path

import pytest

import cmcr
from cmcr.recipes.reading import read_recipe
from cmcr.recipes.recipe import Recipe

ROOT = Path(__file__).parents[2]
STAGES = 4 + 1 + 1  # memories, the connection, a run


def write_items(out: Path, most: int) -> None:
    spec = importlib.util.spec_from_file_location("mini_items", ROOT / "recipes/mini/items.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_items(out, 1, 0, most)


def write_recipe(folder: Path, **changes: str) -> Path:
    """Take the shipped recipe, with fewer passes and one run, and replace texts in it."""
    text = (ROOT / "recipes/mini/clip-clap.toml").read_text(encoding="utf-8")
    head, *runs = text.split("[[evaluations]]")
    chosen = [run for run in runs if "counterfactual" in run]
    text = "[[evaluations]]".join([head + "settings = { epochs = 8, batch_size = 40 }\n\n", *chosen])
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def stopped_after_a_shard(folder: Path) -> Recipe:
    """Read a recipe whose pictures were embedded until the first shard, of 30 of the 40 items, was finished."""
    recipe = read_recipe(write_recipe(folder, **{"batch_size = 500": "shard_items = 30"}))

    def stop(event, facts):
        if event == "shard":
            raise KeyboardInterrupt

    out = recipe.path("clip-clap/images-in-clip")
    with pytest.raises(KeyboardInterrupt):
        cmcr.embed("mini-clip", "image", folder / "pictures", out, shard_items=30, on_event=stop)
    return recipe

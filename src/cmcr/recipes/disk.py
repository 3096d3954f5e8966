"""Does what will be written fit on the disks it will be written to?"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmcr.recipes.readable import readable_bytes
from cmcr.recipes.recipe import MemoryRecipe, Recipe
from cmcr.recipes.stages import Stage


@dataclass
class Disk:
    """One disk, and what a run will take of it.

    Attributes:
        place: a folder on it that is there.
        needed: bytes that will be taken, for good or for a while.
        free: bytes.
    """

    place: str
    needed: int
    free: int

    @property
    def problems(self) -> list[str]:
        """Say that it does not fit, and what would help."""
        if self.needed <= self.free:
            return []
        return [
            f"disk: {readable_bytes(self.needed)} are needed below {self.place}, {readable_bytes(self.free)} are free. Free "
            "some, keep memories in float16, or put memories or the connection on another disk by their out."
        ]


def disks_of(written: Sequence[tuple[Path, int]]) -> list[Disk]:
    """Sum up, by disk, what will be written.

    Args:
        written: paths, which need not be there yet, and the bytes of room that they need.
    """
    disks: dict[int, Disk] = {}
    for path, amount in written:
        place = _nearest_folder(path)
        device = place.stat().st_dev
        if device not in disks:
            disks[device] = Disk(str(place), 0, shutil.disk_usage(place).free)
        disks[device].needed += amount
    return list(disks.values())


def written_by(recipe: Recipe, stage: Stage) -> Path:
    """Say where a stage of a recipe writes."""
    if isinstance(stage.part, MemoryRecipe):
        return recipe.path(stage.part.out)
    return recipe.path(recipe.connection.out if stage.part is None else recipe.results)


def _nearest_folder(path: Path) -> Path:
    """Find the first folder above a path that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())

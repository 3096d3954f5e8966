"""What a recipe says: spaces, memories, a connection, evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmcr.memories.layout import SHARD_ITEMS


@dataclass(frozen=True)
class SpaceRecipe:
    """How a space is opened.

    Attributes:
        kind: name of the space, such as clip; None where the table's own name is it.
        model: repository, folder or file; None takes the space's own.
        revision: commit, tag or branch.
        dtype: in which the encoders compute; None takes the space's own.
        options: what else the space takes, such as up_axis of ulip.
    """

    kind: str | None = None
    model: str | None = None
    revision: str | None = None
    dtype: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MemoryRecipe:
    """One embedding run (see `cmcr.extraction.embed.embed`).

    Attributes:
        space: one of the recipe's.
        modality: what the items are.
        input: a folder, a pattern or a list.
        out: folder of the memory.
        column: of a table, which column holds texts or paths.
        id_column: of a table, which column holds ids.
        dtype: in which rows are kept.
        batch_size: items a forward pass.
        shard_items: items a shard.
        max_failures: a number of items, or a share such as "5%".
        expected_items: how many items the input will have, for a plan before it is there.
    """

    space: str
    modality: str
    input: str
    out: str
    column: str | None = None
    id_column: str | None = None
    dtype: str = "float16"
    batch_size: int = 32
    shard_items: int = SHARD_ITEMS
    max_failures: str = "50%"
    expected_items: int | None = None


@dataclass(frozen=True)
class ConnectionRecipe:
    """How the two spaces are connected (see `cmcr.connect`).

    Attributes:
        out: folder of the connection.
        method: names a set of settings.
        seed: of the training.
        overlap: the shared modality; None where there is only one.
        settings: changes to the method's settings.
    """

    out: str
    method: str = "c-mcr"
    seed: int = 0
    overlap: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationRecipe:
    """One run of the evaluation (see `cmcr.evaluation.evaluate`).

    Attributes:
        run: as TASK/DATASET.
        data: folder of the data set; None for the miniature world.
        split: of the data set; None for the published one.
        limit: take so many items only.
        allow_missing: leave out items whose files are not there.
        seed: of intervals and chance.
    """

    run: str
    data: str | None = None
    split: str | None = None
    limit: int | None = None
    allow_missing: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """From raw data to figures.

    Attributes:
        name: of the recipe.
        description: in a sentence.
        root: what relative paths begin from.
        results: folder of the evaluations' files.
        spaces: by the recipe's own names.
        memories: in the order in which they are embedded.
        connection: of the two spaces.
        evaluations: in the order in which they are run.
    """

    name: str
    description: str
    root: Path
    results: str
    spaces: Mapping[str, SpaceRecipe]
    memories: tuple[MemoryRecipe, ...]
    connection: ConnectionRecipe
    evaluations: tuple[EvaluationRecipe, ...]

    def path(self, given: str) -> Path:
        """Place a path of the recipe."""
        return self.root / Path(given).expanduser()

    def result_file(self, evaluation: EvaluationRecipe) -> Path:
        """Say where the figures of a run are kept."""
        return self.path(self.results) / f"{evaluation.run.replace('/', '-')}.json"

    @property
    def overlap(self) -> str:
        """The modality that both spaces embed."""
        if self.connection.overlap is not None:
            return self.connection.overlap
        return shared_modalities(self.memories)[0]

    @property
    def overlap_memories(self) -> list[MemoryRecipe]:
        """The memories of the overlap."""
        return [memory for memory in self.memories if memory.modality == self.overlap]


def shared_modalities(memories: tuple[MemoryRecipe, ...]) -> list[str]:
    """Find the modalities that every space of the memories embeds."""
    names = {memory.space for memory in memories}
    owners: dict[str, set[str]] = {}
    for memory in memories:
        owners.setdefault(memory.modality, set()).add(memory.space)
    return [modality for modality, spaces in owners.items() if spaces == names]

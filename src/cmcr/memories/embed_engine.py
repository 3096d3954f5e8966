"""The seam between what a run is and where its shards are embedded: in this process, or by the workers of an engine."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cmcr.data.items import ItemList
from cmcr.memories.embed_failures import FailureLimit
from cmcr.memories.embed_shards import OnItems, embed_shards
from cmcr.memories.layout import Shard
from cmcr.memories.writer import MemoryWriter
from cmcr.spaces.protocol import Space


@dataclass(frozen=True)
class Job:
    """What a run embeds: opened in this process, and as it was given, for other processes to open it themselves.

    Attributes:
        space: opened.
        items: opened.
        modality: of the items.
        batch_size: items per forward pass.
        device: where to compute; None leaves the encoder where it is.
        given_space: a space, or the name of one.
        space_options: of a space given by name.
        given_inputs: a path, a pattern or a list of items.
        column: of a table, which column holds the texts or paths.
        id_column: of a table, which column holds the ids.
        append: whether the list leaves out what is in the finished memory already.
    """

    space: Space
    items: ItemList
    modality: str
    batch_size: int
    device: str | None
    given_space: str | Space
    space_options: Mapping[str, Any]
    given_inputs: str | Path | ItemList
    column: str | None
    id_column: str | None
    append: bool


class Engine(Protocol):
    """Embeds the missing shards of a run, each byte for byte as every other engine does."""

    def __call__(
        self, job: Job, writer: MemoryWriter, limit: FailureLimit, on_items: OnItems
    ) -> Generator[Shard, None, None]:
        """Embed and write the shards that are missing.

        Args:
            job: what to embed.
            writer: of the memory; knows every shard when the engine is done.
            limit: counts what fails.
            on_items: see `OnItems`.

        Yields:
            each shard when it is written.

        Raises:
            TooManyFailuresError: the limit is exceeded.
            CmcrError: whatever a space, the list of items or the disk is wrong with.
        """
        ...


def embed_here(job: Job, writer: MemoryWriter, limit: FailureLimit, on_items: OnItems) -> Generator[Shard, None, None]:
    """Embed in this process, one shard after another (an `Engine`)."""
    yield from embed_shards(
        job.space,
        job.modality,
        job.items,
        writer,
        writer.missing,
        batch_size=job.batch_size,
        device=job.device,
        limit=limit,
        on_items=on_items,
    )

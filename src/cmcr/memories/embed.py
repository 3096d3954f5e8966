"""Embed a list of items into a memory: `cmcr.embed`, and `cmcr embed` on the command line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from cmcr.arrays import check_count
from cmcr.data.items import Entry, ItemList, as_id, open_items
from cmcr.engine.device import choose_device
from cmcr.errors import ConfigError, ResumeError, unknown_name
from cmcr.files import MANIFEST
from cmcr.memories.embed_differences import first_difference
from cmcr.memories.embed_engine import Engine, Job, embed_here
from cmcr.memories.embed_failures import FailureLimit
from cmcr.memories.embed_own_files import refuse_own_files
from cmcr.memories.layout import SHARD_ITEMS, Origin, Shard
from cmcr.memories.memory import Memory
from cmcr.memories.writer import MemoryWriter, clean, locked, open_writer
from cmcr.spaces.protocol import Space
from cmcr.spaces.registry import space as open_space

OnEvent = Callable[[str, Mapping[str, Any]], None]
"""Called with an event's name and its facts: "started", "items", "shard", "finished"."""


def embed(
    space: str | Space,
    modality: str,
    inputs: str | Path | ItemList,
    out: str | Path,
    *,
    column: str | None = None,
    id_column: str | None = None,
    batch_size: int = 32,
    dtype: str = "float16",
    shard_items: int = SHARD_ITEMS,
    max_failures: float = 0.5,
    append: bool = False,
    device: str | None = None,
    on_event: OnEvent | None = None,
    space_options: Mapping[str, Any] | None = None,
    engine: Engine = embed_here,
) -> Memory:
    """Embed items into a memory on disk, or go on with a run that was stopped.

    Killed at any moment and called again with the same arguments, the result is byte for byte that of a run that was
    never stopped; at most one shard is embedded again. Items that cannot be read or embedded go to a quarantine table and
    stop nothing. See docs/memories.md.

    Args:
        space: a space, or the name of one.
        modality: what the items are, one of the space's.
        inputs: a folder, a pattern such as `photos/**/*.jpg`, a text file of lines, a CSV, JSONL or Parquet file, tar
            shards, or a list of items (see `cmcr.data.items`).
        out: folder of the memory.
        column: of a table, which column holds the texts or paths.
        id_column: of a table, which column holds the ids.
        batch_size: items per forward pass.
        dtype: in which rows are kept: "float16", "bfloat16" or "float32".
        shard_items: items a shard.
        max_failures: a number of items, or a share below 1 of those tried; more stop the run.
        append: add the items whose ids are not in the memory yet to a finished memory.
        device: where to compute; None leaves the encoder where it is.
        on_event: see `OnEvent`.
        space_options: of a space given by name, such as `{"model": "openai/clip-vit-base-patch32"}`.
        engine: where shards are embedded: in this process, or by many (`cmcr.memories.embed_ray.RayEngine`).

    Returns:
        the finished memory.

    Raises:
        ConfigError: a setting out of range, an input that is not there or holds no items, or all items failed.
        LockedError: another run is writing there.
        DeviceError: a device that this machine does not have.
        ResumeError: begun with another model, input or setting; the message says what differs.
        TooManyFailuresError: more items failed than `max_failures`; finished shards are kept.
        WriteError: no permission, disk full; finished shards are kept.
    """
    options = dict(space_options or {})
    encoder = opened(space, modality, options)
    check_count("batch_size", batch_size)
    if device is not None and engine is embed_here:  # other engines' workers may have devices that are not here
        choose_device(device)  # before anything is written
    limit = FailureLimit(max_failures)
    tell = on_event or (lambda event, facts: None)
    items = inputs if isinstance(inputs, ItemList) else open_items(inputs, modality, column=column, id_column=id_column)
    refuse_own_files(inputs, items, Path(out))
    before = _memory_before(Path(out)) if append else None
    if before is not None:
        items = NewItems(items, known_ids(before))
        if items.count() == 0:
            with locked(Path(out)):
                clean(Path(out))  # an append that was killed after its last shard
            _tell_finished(tell, before, {"new": 0})
            return before
    survey = items.survey()
    origin = origin_of(encoder, modality, dtype)
    seen = None if before is None else before.contents[0]
    with ExitStack() as stack:
        opening = open_writer(
            out, origin, survey.count, survey.digest, shard_items=shard_items, append=append, seen=seen
        )
        try:
            writer = stack.enter_context(opening)
        except ResumeError as error:
            raise ResumeError(f"{error} {first_difference(Path(out), items)}".rstrip()) from error
        if writer is not None:
            job = Job(encoder, items, modality, batch_size, device, space, options, inputs, column, id_column, append)
            _run(writer, job, engine, limit, tell)
            finish(writer, items)
    memory = Memory(out)
    _tell_finished(tell, memory, {} if before is None else {"new": len(memory) - len(before)})
    return memory


def _tell_finished(tell: OnEvent, memory: Memory, more: Mapping[str, Any]) -> None:
    tell("finished", {"rows": len(memory), "quarantined": memory.contents[0].quarantined, **more})


def _memory_before(folder: Path) -> Memory:
    """Open the memory to append to."""
    if not (folder / MANIFEST).exists():
        raise ConfigError(f"{folder}: there is no finished memory to append to. Leave --append out.")
    return Memory(folder)


def opened(space: str | Space, modality: str, options: Mapping[str, Any] | None = None) -> Space:
    """Open a space by name, and make sure that it embeds a modality.

    Raises:
        ConfigError: an unknown space, option or modality.
    """
    if options and not isinstance(space, str):
        raise ConfigError("space_options are for a space given by name; this one is open already.")
    encoder = open_space(space, **(options or {})) if isinstance(space, str) else space
    if not isinstance(encoder, Space):
        raise ConfigError(f"expected a space or the name of one, got {type(encoder).__name__}.")
    if modality not in encoder.widths:
        raise unknown_name(f"modality of {encoder.name}", modality, encoder.widths)
    return encoder


def origin_of(space: Space, modality: str, dtype: str) -> Origin:
    """Say what makes rows: the space, and which model in which revision stands behind it."""
    source = getattr(space, "source", None)
    # A folder's place differs from machine to machine; the fingerprint knows its weights.
    model = None if source is None else as_id(Path(source).name if Path(source).exists() else str(source))
    return Origin(space.name, modality, space.fingerprint, model, getattr(space, "revision", None), dtype)


def known_ids(memory: Memory) -> frozenset[str]:
    """Collect the ids of all items of a memory, those in quarantine included."""
    return frozenset(memory.ids) | {item.id for item in memory.quarantine()}


class NewItems(ItemList):
    """The items of a list whose ids are not known yet.

    Args:
        items: the list.
        known: ids to be left out.
    """

    def __init__(self, items: ItemList, known: Collection[str]) -> None:
        self._items = items
        self._known = known
        self.description = f"what is new in {items.description}"

    @property
    def ignored(self) -> Mapping[str, int]:  # type: ignore[override]
        """File endings that were passed over, and how many files."""
        return self._items.ignored

    def count(self) -> int:
        """Count the items that are new."""
        return sum(1 for _ in self._entries())

    def _entries(self) -> Iterator[Entry]:
        return (entry for entry in self._items.walk() if entry.id not in self._known)

    def _nothing(self) -> ConfigError:
        return ConfigError(f"{self._items.description}: nothing is new.")


def finish(writer: MemoryWriter, items: ItemList) -> None:
    """Write the manifest, after making sure that the list of items is still the one the run began with.

    Raises:
        ResumeError: it has changed.
        ConfigError: no item could be embedded.
    """
    if items.survey().digest != writer.plan.run.digest:
        raise ResumeError(
            f"{writer.folder}: the list of items has changed during the run, so rows and items may not belong together. "
            "What was finished is kept; bring the list back and run it again, or begin anew in another folder."
        )
    if not any(shard.rows for shard in writer.shards.values()) and writer.before is None:
        raise ConfigError(
            f"{writer.folder}: none of the {writer.plan.run.items} items could be embedded, see "
            f"{writer.folder}/*.quarantine.jsonl. Is it the right modality? Remove the folder before you run it anew."
        )
    writer.finish()


def _run(writer: MemoryWriter, job: Job, engine: Engine, limit: FailureLimit, tell: OnEvent) -> None:
    done = sum(shard.items for shard in writer.shards.values())
    facts = {"items": writer.plan.run.items, "done": done, "shards": writer.count}
    tell("started", {**facts, **({"passed_over": dict(job.items.ignored)} if job.items.ignored else {})})
    limit.count(done, writer.quarantined, "see the quarantine table.")
    with closing(engine(job, writer, limit, lambda count: tell("items", {"count": count}))) as shards:
        for shard in shards:
            tell("shard", shard_facts(shard))


def shard_facts(shard: Shard) -> dict[str, Any]:
    """Say what an event tells of a shard."""
    return {"shard": shard.name, "rows": shard.rows, "quarantined": shard.quarantined}

"""Embed a list of items into a memory: `cmcr.embed`, and `cmcr embed` on the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cmcr.arrays import check_count
from cmcr.connection.references import is_same, reference_rows
from cmcr.data.items import Entry, ItemList, open_items
from cmcr.engine.device import choose_device
from cmcr.engine.shards_map import check_engine, map_shards
from cmcr.errors import ConfigError, ResumeError, unknown_name
from cmcr.files import MANIFEST
from cmcr.memories.embed_shards import FailureLimit, ShardEmbedder, origin_of
from cmcr.memories.layout import DTYPES, SHARD_ITEMS, Plan
from cmcr.memories.memory import Memory
from cmcr.memories.survey import survey
from cmcr.memories.writer import clean, locked, open_writer, worker_writer
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
    retry_quarantined: bool = False,
    device: str | None = None,
    on_event: OnEvent | None = None,
    space_options: Mapping[str, Any] | None = None,
    engine: str = "here",
    workers: int = 2,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0,
) -> Memory:
    """Embed items into a memory on disk, or resume a run that was stopped.

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
        retry_quarantined: append, and also try the items in quarantine again, which are found in `inputs` by their ids.
        device: where to compute; None leaves the encoder where it is.
        on_event: see `OnEvent`.
        space_options: of a space given by name, such as `{"model": "openai/clip-vit-base-patch32"}`.
        engine: "here", or "ray" for several processes on one machine or many (see docs/memories.md).
        workers: processes on Ray.
        cpus_per_worker: cores for each, and threads with which torch computes in it.
        gpus_per_worker: for each; a fraction shares one.

    Returns:
        the finished memory.

    Raises:
        ConfigError: a setting out of range, an input that is not there or holds no items, or all items failed.
        LockedError: another run is writing there.
        DeviceError: a device that this machine does not have.
        ResumeError: begun with another model, input or setting; the message names what differs.
        IntegrityError: an encoder to append with that gives other rows for fixed inputs than the one before.
        TooManyFailuresError: more items failed than `max_failures`; finished shards are kept.
        WriteError: no permission, disk full or too small; finished shards are kept.
        WorkerError: processes on Ray were lost again and again.
    """
    append = append or retry_quarantined
    options = dict(space_options or {})
    job = _Job(space, options, modality, inputs, column, id_column, batch_size, device, append, retry_quarantined)
    ray: dict[str, Any] = {"workers": workers, "cpus_per_worker": cpus_per_worker, "gpus_per_worker": gpus_per_worker}
    check_count("batch_size", batch_size)
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    check_engine(engine, **ray)
    most = sys.maxsize if retry_quarantined else max_failures  # what failed before may fail again
    limit, report, folder = FailureLimit(most), on_event or (lambda event, facts: None), Path(out)
    encoder = job.opened()
    if device is not None and engine == "here":  # workers may have devices that are not here
        choose_device(device)  # before anything is written
    items, new, before = job.listed(), {}, None
    if append:
        if not (folder / MANIFEST).exists():
            raise ConfigError(f"{folder}: there is no finished memory to append to. Leave --append out.")
        before = Memory(folder)
        if before.references is not None and before.fingerprint == encoder.fingerprint:
            is_same(encoder, before.space, modality, before.references, before.versions)
        items = NewItems(items, known_ids(before, retry_quarantined))
        if next(items._entries(), None) is None:
            with locked(folder):
                clean(folder)  # an append that was killed after its last shard
            return _finished(folder, report, {"new": 0})
    found = survey(lambda: ((entry.id, entry.mark) for entry in items.walk()), shard_items, items.description)
    opening = open_writer(
        folder,
        origin_of(encoder, modality, dtype),
        found,
        shard_items=shard_items,
        width=encoder.widths[modality],
        append=append,
        seen=None if before is None else before.contents[0],
        root=items.root,
    )
    with opening as writer:
        if writer is not None:
            kept = writer.shards.values()
            tried = sum(shard.items for shard in kept), sum(shard.quarantined for shard in kept)
            skipped = {"passed_over": dict(items.ignored)} if items.ignored else {}
            report("started", {"items": found.count, "done": tried[0], "shards": writer.count, **skipped})
            limit.count(*tried, "see the quarantine table.")

            def on_batch(tried: int, failed: int, reason: str) -> None:
                limit.count(tried, failed, reason)
                report("items", {"count": tried})

            here = ShardEmbedder(encoder, modality, items, writer, batch_size, device, on_batch)
            elsewhere = replace(job, device="cuda") if device is None and gpus_per_worker else job
            there = partial(elsewhere.worker, Path(os.path.abspath(out)), writer.plan)  # noqa: PTH100 - keeps links
            with closing(map_shards(here, there, writer.missing, engine=engine, **ray)) as shards:
                for number, (shard, reason) in shards:
                    # From the result, not from the disk: a network file system may be slow to show what others have written.
                    writer.shards[number] = shard
                    if engine != "here":
                        on_batch(shard.items, shard.quarantined, reason)
                    report("shard", {"shard": shard.name, "rows": shard.rows, "quarantined": shard.quarantined})
            rows = reference_rows(encoder, [modality]).get(modality, torch.empty(0))
            writer.references = tuple(tuple(round(number, 6) for number in row) for row in rows.tolist())
            contents = writer.finish()
            new = {} if before is None else {"new": contents.rows - len(before)}
    return _finished(folder, report, new)


@dataclass(frozen=True)
class _Job:
    """What is embedded, as it was given: a worker on another machine opens it itself."""

    space: str | Space
    space_options: Mapping[str, Any]
    modality: str
    inputs: str | Path | ItemList
    column: str | None
    id_column: str | None
    batch_size: int
    device: str | None
    append: bool
    retry_quarantined: bool

    def opened(self) -> Space:
        """Open the space, and make sure that it embeds the modality."""
        if self.space_options and not isinstance(self.space, str):
            raise ConfigError("space_options are for a space given by name; this one is open already.")
        encoder = open_space(self.space, **self.space_options) if isinstance(self.space, str) else self.space
        if not isinstance(encoder, Space):
            raise ConfigError(f"expected a space or the name of one, got {type(encoder).__name__}.")
        if self.modality not in encoder.widths:
            raise unknown_name(f"modality of {encoder.name}", self.modality, encoder.widths)
        return encoder

    def listed(self) -> ItemList:
        if isinstance(self.inputs, ItemList):
            return self.inputs
        return open_items(self.inputs, self.modality, column=self.column, id_column=self.id_column)

    def worker(self, folder: Path, plan: Plan) -> ShardEmbedder:
        """Open what a worker works with, and make sure that it is what the run began with."""
        writer = worker_writer(folder, plan)
        encoder = self.opened()
        if encoder.fingerprint != plan.origin.fingerprint:
            raise ResumeError(
                f"space {encoder.name}: its fingerprint is {encoder.fingerprint}, that of the run {plan.origin.fingerprint}. "
                "The weights must be the same on all machines."
            )
        items = self.listed()
        if self.append:
            items = NewItems(items, known_ids(Memory(folder), self.retry_quarantined))
        return ShardEmbedder(encoder, self.modality, items, writer, self.batch_size, self.device)


def known_ids(memory: Memory, retry_quarantined: bool) -> frozenset[str]:
    """Collect the ids of all items of a memory, those in quarantine included unless they are to be tried again."""
    return frozenset(memory.ids) | (set() if retry_quarantined else {item.id for item in memory.quarantine()})


class NewItems(ItemList):
    """The items of a list whose ids are not known yet."""

    def __init__(self, items: ItemList, known: Collection[str]) -> None:
        self._items = items
        self._known = known
        self.description = f"what is new in {items.description}"

    @property
    def ignored(self) -> Mapping[str, int]:  # type: ignore[override]
        """File endings that were passed over, and how many files."""
        return self._items.ignored

    @property
    def root(self) -> Path | None:
        """That of the list."""
        return self._items.root

    def _entries(self) -> Iterator[Entry]:
        return (entry for entry in self._items.walk() if entry.id not in self._known)

    def _nothing(self) -> ConfigError:
        return ConfigError(f"{self._items.description}: nothing is new.")


def _finished(folder: Path, report: OnEvent, new: Mapping[str, Any]) -> Memory:
    memory = Memory(folder)
    report("finished", {"rows": len(memory), "quarantined": len(memory.quarantine()), **new})
    return memory

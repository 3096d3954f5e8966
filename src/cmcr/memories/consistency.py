"""Semantically consistent rows as a memory on disk: written shard by shard, resumed and verified like any other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from cmcr.arrays import normalized
from cmcr.connection.enhancement import semantic_consistency
from cmcr.engine.device import choose_device
from cmcr.engine.shards_map import check_engine, map_shards
from cmcr.errors import DimensionError
from cmcr.memories.layout import Origin, Plan, Shard
from cmcr.memories.memories import Stored
from cmcr.memories.memory import Memory
from cmcr.memories.precomputed import OnProgress, shard_items_for
from cmcr.memories.survey import survey
from cmcr.memories.writer import MemoryWriter, open_writer, worker_writer


def write_consistent(
    queries: Stored,
    memory: Stored,
    out: str | Path,
    *,
    temperature: float = 0.01,
    normalize: bool = False,
    precision: Literal["float32", "bfloat16"] = "float32",
    device: str | None = None,
    engine: str = "here",
    on_progress: OnProgress | None = None,
    **on_ray: Any,
) -> Memory:
    """Write the semantically consistent row of each query, see `cmcr.semantic_consistency`, or resume a run that was stopped.

    Args:
        queries: `(Q, D)` the overlap of a space: a memory on disk, or those of its rows that another space has too.
        memory: `(N, D)` of the other modality of that space; read once for every shard of queries.
        out: folder of the memory that is written: row i belongs to query i and has its id.
        temperature: the softmax temperature tau_1, above 0.
        normalize: scale the results to unit rows.
        precision: of the products, "float32" or "bfloat16".
        device: where to compute; None takes the CPU, on Ray the GPU where workers have one.
        engine: "here", or "ray" for several processes on one machine or many (see docs/memories.md).
        on_progress: called with the share of the work that is done, in (0, 1].
        **on_ray: `workers`, `cpus_per_worker` and `gpus_per_worker`, see `cmcr.engine.shards_map.map_shards`.

    Returns:
        `(Q, D)` float32 rows: of the space and modality of `memory`, with the ids of `queries`.

    Raises:
        DimensionError: queries and memory are not equally wide.
        ConfigError: a setting out of range.
        LockedError, ResumeError, FormatError, WriteError: as `cmcr.write_memory`.
        CmcrError: others, as `cmcr.semantic_consistency`.
    """
    check_engine(engine, **on_ray)
    if queries.shape[1] != memory.width:
        raise DimensionError(f"the queries are {queries.shape[1]} wide, the memory {memory.width}: expected one space.")
    if engine == "here":
        choose_device(device or "cpu")  # before anything is written
    report = on_progress or (lambda share: None)
    options = {"temperature": temperature, "normalize": normalize, "precision": precision}
    settings = {"queries": queries.digest(), "memory": memory.digest(), **options}
    size = shard_items_for(memory.width, "float32")
    found = survey(lambda: ((id_, b"") for id_ in queries.ids), size, "the queries")
    facts = {name: getattr(memory, name) for name in ("space", "modality", "fingerprint", "model", "revision")}
    origin = Origin(**facts, dtype="float32")
    with open_writer(out, origin, found, shard_items=size, width=memory.width, settings=settings) as writer:
        if writer is not None:
            here = _Consistent(queries, memory, options, device, writer, report)
            folder = Path(os.path.abspath(out))  # noqa: PTH100 - keeps links, which may lead elsewhere there
            elsewhere = "cuda" if device is None and on_ray.get("gpus_per_worker") else device
            there = partial(_worker, queries, memory, options, elsewhere, folder, writer.plan)
            shards = map_shards(here, there, writer.missing, engine=engine, **on_ray)
            with closing(shards):
                for number, shard in shards:
                    writer.shards[number] = shard
                    report(len(writer.shards) / writer.count)
            writer.finish()
    written = Memory(out)
    written.as_written = True
    return written


@dataclass(frozen=True)
class _Consistent:
    """Computes and writes shards by number."""

    queries: Stored
    memory: Stored
    options: Mapping[str, Any]
    device: str | None
    writer: MemoryWriter
    report: OnProgress = lambda share: None

    def __call__(self, number: int) -> Shard:
        span = self.writer.items_of(number)
        finished, count = len(self.writer.shards), self.writer.count
        # Rounding on disk has moved their length a little.
        queries = normalized(torch.from_numpy(self.queries[span.start : span.stop]))
        rows = semantic_consistency(
            queries.to(choose_device(self.device or "cpu")),
            self.memory,
            progress=lambda share: self.report((finished + share) / count),
            **self.options,
        )
        return self.writer.write(number, rows.cpu(), [(id_, id_) for id_ in self.queries.ids[span.start : span.stop]])


def _worker(queries: Stored, memory: Stored, options: Any, device: str | None, folder: Path, plan: Plan) -> _Consistent:
    return _Consistent(queries, memory, options, device, worker_writer(folder, plan))

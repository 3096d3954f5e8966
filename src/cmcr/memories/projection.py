"""Rows carried into the common space as a memory on disk: written shard by shard, resumed, and appended to as its source is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from cmcr.connection.connection import Connection
from cmcr.engine.device import choose_device
from cmcr.errors import ResumeError, differences
from cmcr.files import MANIFEST
from cmcr.memories.layout import Origin
from cmcr.memories.memory import Memory, root_of
from cmcr.memories.precomputed import OnProgress, shard_items_for
from cmcr.memories.survey import survey
from cmcr.memories.writer import clean, locked, open_writer


def write_projected(
    connection: Connection,
    memory: Memory,
    out: str | Path,
    *,
    own: bool = False,
    device: str = "auto",
    on_progress: OnProgress | None = None,
) -> Memory:
    """Carry the rows of a memory into the common space, resume a run that was stopped, or add what the memory has got since.

    Args:
        connection: has a map for the space of the memory.
        memory: `(N, D)` of one of its spaces.
        out: folder of the memory that is written: row i belongs to row i and has its id. If it is there already, rows
            beyond those that it has are added.
        own: write the whole direct sum (`Connection.project`) instead of the common block alone (`Connection.common`).
        device: where to compute.
        on_progress: called with the share of the work that is done, in (0, 1].

    Returns:
        `(N, K)` float32 rows; the fingerprint of the memory is that of the connection.

    Raises:
        ConfigError: a space that the connection does not have.
        DimensionError: rows of another width than the space's.
        ResumeError: what is in `out` was made by another connection, or of rows that the memory no longer begins with.
        LockedError, FormatError, WriteError: as `cmcr.write_memory`.
        CmcrError: others, as `Connection.project`.
    """
    out, where = Path(out), str(choose_device(device))
    carry = connection.project if own else connection.common
    width = carry(memory[:1], memory.space).shape[1]  # checks space and width before anything is written
    made_by = connection_hash(connection)
    settings = {"connection": made_by, "own": own, "memory": memory.digest()}
    facts: dict[str, Any] = {name: getattr(memory, name) for name in ("space", "modality", "model", "revision")}
    origin = Origin(**facts, fingerprint=made_by[:16], dtype="float32")
    before = Memory(out).contents[0] if (out / MANIFEST).is_file() else None
    first = 0 if before is None else before.rows
    if before is not None:  # what is there must be what the memory begins with
        now = {**settings, "memory": memory.digest(before.rows)}
        if differing := differences(before.runs[-1].settings, now):
            raise ResumeError(f"{out}: projected from something else: {differing}. Choose another folder.")
    if first == len(memory):
        with locked(out):
            clean(out)  # an append that was killed after its last shard
        return Memory(out)
    size, ids = shard_items_for(width, "float32"), memory.ids
    found = survey(lambda: ((id_, b"") for id_ in ids[first:]), size, "the rows")
    roots = {
        root_of(folder, run) for folder, each in zip(memory.folders, memory.contents, strict=True) for run in each.runs
    }
    options = {"shard_items": size, "width": width, "settings": settings, "append": before is not None, "seen": before}
    with open_writer(out, origin, found, **options, root=roots.pop() if len(roots) == 1 else None) as writer:
        if writer is not None:
            for number in writer.missing:
                span = writer.items_of(number)
                start, stop = first + span.start, first + span.stop
                rows = carry(memory[start:stop], memory.space, device=where)
                writer.write(number, torch.from_numpy(rows), [(id_, id_) for id_ in ids[start:stop]])
                if on_progress is not None:
                    on_progress(len(writer.shards) / writer.count)
            writer.finish()
    return Memory(out)


def connection_hash(connection: Connection) -> str:
    """Hash everything that decides where a connection carries rows: 64 hexadecimal digits."""
    config = {name: each.config() for name, each in connection.projectors.items()}
    hashed = hashlib.sha256(json.dumps([list(config.items()), connection.own_share], sort_keys=True).encode())
    tensors = {
        f"{space}.{name}": tensor
        for space, each in connection.projectors.items()
        for name, tensor in each.state_dict().items()
    }
    tensors |= {f"{space}.own_axes": axes for space, axes in connection.own_axes.items()}
    for name, tensor in sorted(tensors.items()):
        hashed.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()

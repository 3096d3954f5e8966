"""`cmcr info`."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from cmcr.cli.console import print_table

_REASONS_SHOWN = 5


def info(path: Path, /, *, json_output: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """Say what an artefact is; of a memory that is not finished, how far it is.

    Example: cmcr info captions-in-clip

    Parameters
    ----------
    path
        Folder of a memory or a connection.
    json_output
        Print one line of JSON.
    """
    from cmcr.files import artefact_kind
    from cmcr.memories.verification import unfinished

    if unfinished(path):
        facts = _unfinished_memory(path)
    else:
        facts = _memory(path) if artefact_kind(path) == "cmcr memory" else _connection(path)
    if json_output:
        print(json.dumps(facts))
        return
    rows = [[key.replace("_", " "), _shown(value)] for key, value in facts.items() if not isinstance(value, dict)]
    for key, value in facts.items():
        if isinstance(value, dict):
            rows += [[_label(key, name), _shown(said)] for name, said in value.items()]
    print_table(str(path), ["", ""], rows)


def _connection(path: Path) -> dict[str, Any]:
    from cmcr.connection.artefact import load

    connection = load(path)
    return {
        "kind": "connection",
        "spaces": {
            s.name: {"modalities": list(s.modalities), "width": s.width, "fingerprint": s.fingerprint}
            for s in connection.spaces
        },
        "overlap": connection.overlap,
        "overlap_rows": connection.overlap_rows,
        "width": connection.width,
        "method": connection.method,
        "seed": connection.seed,
    }


def _memory(path: Path) -> dict[str, Any]:
    from cmcr.memories.memory import Memory
    from cmcr.memories.verification import under_way

    memory = Memory(path)
    (contents,) = memory.contents
    facts: dict[str, Any] = {
        "kind": "memory",
        "finished": True,
        "space": memory.space,
        "modality": memory.modality,
        "model": memory.model,
        "revision": memory.revision,
        "fingerprint": memory.fingerprint,
        "width": memory.width,
        "dtype": memory.dtype,
        "rows": len(memory),
        "shards": len(contents.shards),
        "runs": len(contents.runs),
        "quarantined": contents.quarantined,
        "written_by": contents.written_by,
    }
    kinds = Counter(_kind_of(item.reason, (item.id, item.source)) for item in memory.quarantine())
    if kinds:
        facts["quarantined_because"] = dict(kinds.most_common(_REASONS_SHOWN))
    if (run := under_way(path)) is not None:
        facts["run_under_way"] = {"items": run.run.items, "shards": run.shards, "finished": run.finished}
    return facts


def _unfinished_memory(path: Path) -> dict[str, Any]:
    from cmcr.memories.verification import being_written, under_way

    facts: dict[str, Any] = {"kind": "memory", "finished": False, "being_written": being_written(path)}
    if (run := under_way(path)) is None:
        return {**facts, "shards": None, "shards_finished": 0}
    origin = run.origin
    return {
        **facts,
        "space": origin.space,
        "modality": origin.modality,
        "model": origin.model,
        "revision": origin.revision,
        "fingerprint": origin.fingerprint,
        "dtype": origin.dtype,
        "items": run.run.items,
        "shards": run.shards,
        "shards_finished": run.finished,
    }


def _kind_of(reason: str, names: tuple[str, ...]) -> str:
    """Leave out of a reason what is true of one item only: its names and its numbers."""
    for name in names:
        reason = reason.replace(name, "")
    return re.sub(r"\d+", "N", reason).lstrip(": ")


def _label(key: str, name: str) -> str:
    return f"space {name}" if key == "spaces" else f"{key.replace('_', ' ')}: {name}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        if "modalities" in value:
            return (
                f"{', '.join(value['modalities'])}; {value['width']} wide; {value['fingerprint'] or 'given as arrays'}"
            )
        return ", ".join(f"{name} {said}" for name, said in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return f"{value:,}" if isinstance(value, int) else str(value)

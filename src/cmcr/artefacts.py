"""What a folder is that cmcr has written, and whether it is whole: memories, connections and indexes alike."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmcr.connection import artefact
from cmcr.evaluation.results import read_result
from cmcr.files import artefact_kind
from cmcr.memories import verification
from cmcr.memories.memory import Memory
from cmcr.search import layout

_REASONS = 5


def verify(path: Path, *, show_progress_bar: bool | None = False) -> dict[str, Any]:
    """Hash every file of a memory, a connection or an index, or check a file of results.

    Args:
        path: its folder, or the file.
        show_progress_bar: None shows one where a person looks and there are many files.

    Returns:
        what was found whole: "path", "whole", and of a memory or an index "kind", "rows", "files" and "bytes".

    Raises:
        ArtefactNotFoundError, FormatError, IntegrityError, LockedError, ReadError: it is not whole; the message names the
            damaged files.
    """
    facts: dict[str, Any] = {"path": str(path), "whole": True}
    if path.is_file():
        return {**facts, "kind": read_result(path)["format"]}
    if not _is_memory(path):
        if artefact_kind(path) == layout.FORMAT:
            return {**facts, "kind": "index", **layout.verify(path, show_progress_bar)}
        artefact.load(path)
        return facts
    return {**facts, "kind": "memory", **verification.verify(path, show_progress_bar=show_progress_bar)}


def describe(path: Path) -> dict[str, Any]:
    """Describe a memory, a connection, an index or a file of results; of a memory that is not finished, how far it is.

    Raises:
        ArtefactNotFoundError, FormatError, IntegrityError, ReadError: there is nothing, or nothing of cmcr's.
    """
    if path.is_file():
        return _result(path)
    if verification.unfinished(path):
        return _unfinished_memory(path)
    if _is_memory(path):
        return _memory(path)
    return _index(path) if artefact_kind(path) == layout.FORMAT else _connection(path)


def _result(path: Path) -> dict[str, Any]:
    found = read_result(path)
    made = found.get("made_from", found)
    facts = {"kind": found["format"], "run": made["run"], "data": made["data"]["name"], "versions": made["versions"]}
    figures = found.get("figures", {}).get("connection", {})
    return {**facts, **{key: figure["value"] for key, figure in figures.items()}}


def _is_memory(path: Path) -> bool:
    return verification.unfinished(path) or artefact_kind(path) == "cmcr memory"


def _index(path: Path) -> dict[str, Any]:
    manifest = layout.read_manifest(path)
    return {
        "kind": "index",
        "items": sum(corpus.rows for corpus in manifest.corpora),
        "corpora": {
            f"{corpus.modality} of {corpus.space}": {
                "items": corpus.rows,
                "live": corpus.live,
                "back_end": corpus.backend,
                "cards": {block: card.model_dump() for block, card in corpus.cards.items()},
                "memories": [part.path for part in corpus.own],
                "embedded_from": [part.input for part in corpus.own if part.input is not None],
            }
            for corpus in manifest.corpora
        },
        "encoders": dict(manifest.encoders),
        "written_by": manifest.written_by,
    }


def _connection(path: Path) -> dict[str, Any]:
    connection = artefact.load(path)
    return {
        "kind": "connection",
        "spaces": {
            space.name: {"modalities": list(space.modalities), "width": space.width, "fingerprint": space.fingerprint}
            for space in connection.spaces
        },
        "overlap": connection.overlap,
        "overlap_rows": connection.overlap_rows,
        "width": connection.width,
        "method": connection.method,
        "seed": connection.seed,
        "diagnosis": [asdict(finding) for finding in connection.diagnose()],
    }


def _memory(path: Path) -> dict[str, Any]:
    memory = Memory(path)
    (contents,) = memory.contents
    facts: dict[str, Any] = {
        "kind": "memory",
        "finished": True,
        **contents.origin.model_dump(),
        "width": memory.width,
        "rows": len(memory),
        "shards": len(contents.shards),
        "runs": len(contents.runs),
        "quarantined": len(memory.quarantine()),
        "written_by": contents.written_by,
    }
    reasons = Counter(_general(item.reason, item.id, item.source) for item in memory.quarantine())
    if reasons:
        facts["quarantined_because"] = dict(reasons.most_common(_REASONS))
    if (run := verification.under_way(path)) is not None:
        facts["run_under_way"] = {"items": run.plan.run.items, "shards": run.count, "finished": len(run.shards)}
    return facts


def _unfinished_memory(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": "memory", "finished": False, "being_written": verification.being_written(path)}
    if (run := verification.under_way(path)) is None:
        return {**facts, "shards": None, "shards_finished": 0}
    return {
        **facts,
        **run.plan.origin.model_dump(),
        "items": run.plan.run.items,
        "shards": run.count,
        "shards_finished": len(run.shards),
    }


def _general(reason: str, *names: str) -> str:
    """Leave out of a reason what is true of one item only, its names and numbers, so that reasons can be counted."""
    for name in names:
        reason = reason.replace(name, "")
    return re.sub(r"\d+", "N", reason).lstrip(": ")

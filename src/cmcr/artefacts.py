"""What a folder is that cmcr has written, and whether it is whole: memories, connections and indexes alike."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmcr import connecting
from cmcr.connection import artefact
from cmcr.connection.references import check_encoders, is_same
from cmcr.connection.summary import in_short
from cmcr.errors import FormatError, IntegrityError
from cmcr.evaluation.results import ABLATIONS_FORMAT, read_result
from cmcr.files import MANIFEST, artefact_kind, parsed_manifest, validated
from cmcr.loading import load
from cmcr.memories import verification
from cmcr.memories.memory import Memory, root_of
from cmcr.search import layout
from cmcr.spaces.protocol import Space
from cmcr.spaces.registry import ready_space

_REASONS = 5


def verify(path: Path, *, encoders: Sequence[Space] = (), show_progress_bar: bool | None = False) -> dict[str, Any]:
    """Hash every file of a memory, a connection or an index, or check a file of results.

    Args:
        path: its folder, or the file.
        encoders: of a connection or a memory, to compare what they make of fixed inputs with what they made then; those of
            cmcr's miniature spaces and registered ones are compared without being given.
        show_progress_bar: None shows one where a person looks and there are many files.

    Returns:
        what was found whole: "path", "whole", "kind", of a memory or an index "rows", "files" and "bytes", and of a
        memory or a connection "encoders_compared", such as "text of clip".

    Raises:
        ArtefactNotFoundError, FormatError, IntegrityError, LockedError, ReadError: it is not whole; the message names the
            damaged files.
        ConfigError: an encoder of another space, or one with another fingerprint.
    """
    facts: dict[str, Any] = {"path": str(path), "whole": True}
    if path.is_file():
        return {**facts, "kind": read_result(path)["format"]}
    if not _is_memory(path):
        if artefact_kind(path) == layout.FORMAT:
            return {**facts, "kind": "index", **layout.verify(path, show_progress_bar)}
        connection = load(path, encoders=encoders)
        return {**facts, "kind": "connection", "encoders_compared": check_encoders(connection)}
    found = verification.verify(path, show_progress_bar=show_progress_bar)
    return {**facts, "kind": "memory", **found, "encoders_compared": _compared(Memory(path), encoders)}


def _compared(memory: Memory, encoders: Sequence[Space]) -> list[str]:
    """Compare the encoder of a memory, where it is given or comes with cmcr, with what it made of fixed inputs then."""
    ready = ready_space(memory.space)
    ours = [each for each in (*encoders, *([ready] if ready else [])) if each.fingerprint == memory.fingerprint]
    if not ours or memory.references is None:
        return []
    same = is_same(ours[0], memory.space, memory.modality, memory.references, memory.versions)
    return [f"{memory.modality} of {memory.space}"] if same else []


def describe(path: Path) -> dict[str, Any]:
    """Describe what a path of cmcr's is: a memory, a connection, an index, results; of what is unfinished, how far it is.

    Args:
        path: its folder, that of its unfinished work (`OUT.unfinished`), or a file of results.

    Raises:
        ArtefactNotFoundError, FormatError, IntegrityError, ReadError: there is nothing, or nothing of cmcr's.
    """
    if path.is_file():
        return _results(path)
    work = path if path.name.endswith(connecting.WORK) else path.parent / f"{path.name}{connecting.WORK}"
    if work.is_dir() and (work is path or not path.exists()):
        return _unfinished_connection(work)
    if verification.unfinished(path):
        return _unfinished_memory(path)
    if (path / layout.LOCK).is_file() and not (path / MANIFEST).exists():
        return _unfinished_index(path)
    if not (path / MANIFEST).exists() and (facts := _evaluations(path)):
        return facts
    readers = {"cmcr memory": _memory, layout.FORMAT: _index, connecting.FORMAT: _training}
    return readers.get(artefact_kind(path), _connection)(path)


def _is_memory(path: Path) -> bool:
    return verification.unfinished(path) or artefact_kind(path) == "cmcr memory"


def _index(path: Path) -> dict[str, Any]:
    manifest = layout.read_manifest(path)
    corpora = {
        f"{corpus.modality} of {corpus.space}": {
            "items": corpus.rows,
            "live": corpus.live,
            "back_end": corpus.backend,
            "cards": {block: card.model_dump() for block, card in corpus.cards.items()},
            "memories": [part.path for part in corpus.own],
            "embedded_from": [part.input for part in corpus.own if part.input is not None],
        }
        for corpus in manifest.corpora
    }
    facts = {"encoders": dict(manifest.encoders), "written_by": manifest.written_by}
    return {"kind": "index", "items": sum(corpus.rows for corpus in manifest.corpora), "corpora": corpora, **facts}


def _connection(path: Path) -> dict[str, Any]:
    connection = artefact.load(path)
    spaces = {
        space.name: {"modalities": list(space.modalities), "width": space.width, "fingerprint": space.fingerprint}
        for space in connection.spaces
    }
    plain = {name: getattr(connection, name) for name in ("overlap", "overlap_rows", "width", "method", "seed")}
    findings = [asdict(finding) for finding in connection.diagnose()]
    return {"kind": "connection", "spaces": spaces, **plain, "in_short": in_short(connection), "diagnosis": findings}


def _memory(path: Path) -> dict[str, Any]:
    memory = Memory(path)
    (contents,), lost = memory.contents, memory.quarantine()
    facts: dict[str, Any] = {"kind": "memory", "finished": True, **contents.origin.model_dump(), "width": memory.width}
    facts |= {"rows": len(memory), "shards": len(contents.shards), "runs": len(contents.runs), "quarantined": len(lost)}
    facts["written_by"] = contents.written_by
    if roots := {str(root) for run in contents.runs if (root := root_of(path, run))}:
        facts["embedded_from"] = sorted(roots)
    reasons = Counter(_general(item.reason, item.id, item.source) for item in lost)
    if reasons:
        facts["quarantined_because"] = dict(reasons.most_common(_REASONS))
    if (run := verification.under_way(path)) is not None:
        facts["run_under_way"] = {"items": run.plan.run.items, "shards": run.count, "finished": len(run.shards)}
    return facts


def _unfinished_memory(path: Path) -> dict[str, Any]:
    facts = {"kind": "memory", **_begun(path, "cmcr embed with the same arguments, or whatever began it")}
    if (run := verification.under_way(path)) is None:
        return {**facts, "shards": None, "shards_finished": 0}
    how_far = {"items": run.plan.run.items, "shards": run.count, "shards_finished": len(run.shards)}
    return {**facts, **run.plan.origin.model_dump(), **how_far}


def _unfinished_connection(work: Path) -> dict[str, Any]:
    """Describe what `cmcr connect` has kept: the choice, the consistent rows of either space, the training."""
    facts = {"kind": "connection", **_begun(work, "cmcr connect with the same arguments")}
    if (work / "choice" / MANIFEST).is_file():
        facts["chosen"] = _kept(work / "choice", connecting.CHOICE).choice.get("chosen")
    for folder in sorted(work.glob("*-consistent")):
        facts[f"consistent rows, {folder.name.partition('-')[0]}"] = _how_far(folder)
    if (work / "training" / MANIFEST).is_file():
        facts["training"] = _training(work / "training")
    return facts


def _training(folder: Path) -> dict[str, Any]:
    kept = _kept(folder, connecting.FORMAT)
    step = re.sub(r"\D", "", next(iter(kept.sha256), ""))
    facts = {name: kept.identity.get(name) for name in ("method", "epochs", "batch_size", "seed", "device")}
    return {"kind": "training", "step": int(step or 0), **facts}


def _kept(folder: Path, kind: str) -> connecting.Kept:
    return validated(connecting.Kept, parsed_manifest(folder, kind, connecting.VERSION), folder)


def _unfinished_index(path: Path) -> dict[str, Any]:
    facts = {"kind": "index", **_begun(path, "cmcr index with the same arguments", layout.LOCK)}
    return facts | {f"memory {folder.name}": _how_far(folder) for folder in sorted(path.glob("memories/*"))}


def _begun(path: Path, command: str, lock: str = ".lock") -> dict[str, Any]:
    return {"finished": False, "being_written": verification.being_written(path, lock), "to_resume": command}


def _how_far(memory: Path) -> str:
    """Say how far a memory is that belongs to something larger."""
    facts = describe(memory)
    return f"{facts['rows']:,} rows" if facts["finished"] else f"{facts['shards_finished']} of {facts['shards']} shards"


def _results(path: Path) -> dict[str, Any]:
    """Describe a file of results: what was measured of what, and the first figure of each method."""
    found = read_result(path)
    if found["format"] == ABLATIONS_FORMAT:
        facts = {"run": found["made_from"]["run"], "seeds": found["seeds"], "trainings_finished": len(found["cells"])}
        return {"kind": "ablations", **facts, "to_resume": "cmcr ablate with the same arguments"}
    key = min(found["figures"]["connection"], key=lambda key: key != "mean/R@1")
    made = {name: found["connection"][name] for name in ("method", "seed", "overlap", "weights_sha256")}
    shares = {name: measured[key]["value"] for name, measured in found["figures"].items() if key in measured}
    facts = {"kind": "evaluation", "run": found["run"], "data": found["data"]["name"]}
    return {**facts, **made, "figure": key, "share": shares}


def _evaluations(path: Path) -> dict[str, Any] | None:
    """Describe a folder of results, of which each run has written a file; None where it is something else."""
    runs = {}
    for file in sorted(path.glob("*.json")):
        with contextlib.suppress(FormatError, IntegrityError, KeyError):  # the last for ablations
            found = _results(file)
            runs[found["run"]] = f"{found['figure']} {100 * found['share']['connection']:.1f} %"
    again = "cmcr evaluate --all measures all of them again"
    return {"kind": "evaluations", "runs_finished": runs, "to_resume": again} if runs else None


def _general(reason: str, *names: str) -> str:
    """Leave out of a reason what is true of one item only, its names and numbers, so that reasons can be counted."""
    for name in names:
        reason = reason.replace(name, "")
    return re.sub(r"\d+", "N", reason).lstrip(": ")

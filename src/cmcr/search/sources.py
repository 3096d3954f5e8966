"""What an index is made of: from the inputs that a user names to memories, and to the lists in which their items stand."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmcr.connection.connection import Connection
from cmcr.data.items import FileItems, ItemList, TableItems, open_items
from cmcr.data.items.files import ENDINGS_OF, TABLE_ENDINGS, ending_of
from cmcr.errors import ConfigError, unknown_name
from cmcr.files import MANIFEST, artefact_kind
from cmcr.memories.embed import embed
from cmcr.memories.memory import Memory
from cmcr.memories.verification import unfinished
from cmcr.progress import Progress
from cmcr.search.layout import Manifest
from cmcr.spaces.protocol import Space


@dataclass(frozen=True)
class Run:
    """What all steps need.

    Attributes:
        connection, hash: with its encoders, and its hash.
        folder: of the index.
        before: the manifest of an older index there.
        via, modality, columns, batch_size, device, retry_quarantined: how raw items are read, as of `cmcr.index`.
        report: see `Progress`.
    """

    connection: Connection
    hash: str
    folder: Path
    before: Manifest | None
    via: str | None
    modality: str | None
    columns: Mapping[str, str | None]
    batch_size: int
    device: str
    retry_quarantined: bool
    report: Progress


@dataclass(frozen=True)
class Source:
    """A memory of an index, a folder alone; what it was embedded from for this index, absolute, and that list."""

    memory: Memory
    input: str | None = None
    items: ItemList | None = None


@dataclass(frozen=True)
class _Raw:
    """Raw items of one modality, and what will embed them."""

    path: str
    modality: str
    items: ItemList
    encoder: Space


def sources_of(run: Run, inputs: Sequence[str | Path | Memory]) -> list[Source]:
    """Open the memories among the inputs, and embed what is raw into memories in the index; raises as `cmcr.index`."""
    connection, via = run.connection, run.via
    if via is not None and via not in connection.projectors:
        raise unknown_name("space (via)", via, connection.projectors)
    if not inputs:
        raise ConfigError("expected memories, or folders and lists of items to index; got none.")
    prepared: list[Source | _Raw] = []  # all are looked at before the first is embedded
    for path in folders_of(inputs):
        if _is_memory(Path(path)):
            memory = Memory(path)
            check_belongs(connection, memory)
            prepared.append(Source(memory))
            continue
        for modality, items in lists_of(run, path).items():
            prepared.append(_Raw(path, modality, items, _encoder_for(connection, modality, via)))
    return [_embedded(each, run) if isinstance(each, _Raw) else each for each in prepared]


def listed(given: Any) -> list[Any]:
    """Take one input for a list of one."""
    return [given] if isinstance(given, str | os.PathLike | Memory) else list(given)


def folders_of(inputs: Sequence[str | Path | Memory]) -> list[str]:
    """Name the inputs by absolute paths, each once; a memory of several folders by these."""
    paths = [path for each in listed(inputs) for path in (each.folders if isinstance(each, Memory) else [each])]
    return list(dict.fromkeys(map(os.path.abspath, paths)))


def lists_of(run: Run, path: str | Path) -> dict[str, ItemList]:
    """Open raw items as a list for each modality of which there are some; raises ConfigError if there are none."""
    modalities = run.connection.modalities
    if run.modality is not None or ending_of(str(path)) == ".txt":
        modalities = (run.modality or "text",)
    options: dict[str, Any] = dict(run.columns) if ending_of(str(path)) in TABLE_ENDINGS else {}
    found, reasons = dict[str, ItemList](), list[str]()
    for modality in modalities:
        try:
            found[modality] = open_items(path, modality, whole_rows=True, **options)
        except ConfigError as error:
            reasons.append(str(error))
    fitting = {m: items for m, items in found.items() if len(modalities) == 1 or _fits(items, m)}
    if not fitting:
        said = f"Say what it has: --modality {' or '.join(found)}." if found else reasons[0].removeprefix(f"{path}: ")
        raise ConfigError(f"{path}: no items of the connection's modalities ({', '.join(modalities)}). {said}")
    return fitting


def check_belongs(connection: Connection, memory: Memory) -> None:
    """Refuse a memory that the connection cannot carry; raises ConfigError."""
    where = memory.folders[0]
    known = next((space for space in connection.spaces if space.name == memory.space), None)
    if known is None:
        names = " and ".join(repr(space.name) for space in connection.spaces)
        raise ConfigError(f"{where}: of the space {memory.space!r}; the connection has {names}.")
    if None not in (memory.fingerprint, known.fingerprint) and memory.fingerprint != known.fingerprint:
        raise ConfigError(
            f"{where}: embedded by the encoders {memory.fingerprint}; the connection is of {known.fingerprint}. Embed the "
            "items with the model of the connection."
        )
    if memory.modality not in known.modalities:
        raise unknown_name(f"modality of {known.name!r} in the connection", memory.modality, known.modalities)


def _is_memory(path: Path) -> bool:
    if unfinished(path):
        return True
    kind = artefact_kind(path) if (path / MANIFEST).is_file() else ""
    if kind.startswith("cmcr ") and kind != "cmcr memory":
        raise ConfigError(f"{path}: expected a memory or raw items, got a {kind}.")
    return kind == "cmcr memory"


def _encoder_for(connection: Connection, modality: str, via: str | None) -> Space:
    owners = [space.name for space in connection.spaces if modality in space.modalities]
    if not owners:
        raise unknown_name("modality of the connection", modality, connection.modalities)
    name = via if via in owners else owners[0]
    encoder = connection.encoders.get(name)
    if not isinstance(encoder, Space):
        raise ConfigError(
            f"no encoder of space {name!r} is attached to embed {modality} items. Give its model (--model {name}=..., in "
            "Python encoders=), or embed them with cmcr embed and give the memory."
        )
    return encoder


def _embedded(raw: _Raw, run: Run) -> Source:
    """Embed a list, or what is new in it; the name of the memory says what of, so that the same command finds it again."""
    identity = [raw.path, raw.encoder.fingerprint, sorted(run.columns.items(), key=str)]
    hashed = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    out = run.folder / "memories" / f"{raw.encoder.name}-{raw.modality}-{hashed}"
    counts = {"items": 0, "done": 0}

    def report(event: str, facts: Mapping[str, Any]) -> None:
        if event == "started":
            counts.update(items=facts["items"], done=facts["done"])
        elif event == "items":
            counts["done"] += facts["count"]
        if counts["items"]:
            run.report(f"embedding {raw.modality}, {Path(raw.path).name}", counts["done"] / counts["items"])

    append = (out / MANIFEST).is_file()
    memory = embed(
        raw.encoder,
        raw.modality,
        raw.items,
        out,
        batch_size=run.batch_size,
        device=run.device,
        append=append,
        retry_quarantined=append and run.retry_quarantined,
        on_event=report,
    )
    return Source(memory, raw.path, raw.items)


def _fits(items: ItemList, modality: str) -> bool:
    """Tell whether files are more than notes, and of which modality the first row of a table is."""
    if isinstance(items, FileItems):
        return any(ending_of(entry.source) != ".txt" for entry in items.walk())
    if not isinstance(items, TableItems):
        return True
    with closing(items.walk()) as walk:
        first = next(walk)
        content = first.read()
    if isinstance(content, Path):
        return ending_of(content.name) in ENDINGS_OF[modality]
    return modality == "text" if isinstance(content, str) else modality in (first.cells or {})

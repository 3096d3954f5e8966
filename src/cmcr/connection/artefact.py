"""The files of a connection: a manifest, the projectors' weights, the history of the loss and a model card."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from cmcr._version import __version__
from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.connection.maps import Map, map_from
from cmcr.connection.methods import settings_from
from cmcr.errors import CmcrError, FormatError
from cmcr.files import MANIFEST, read_manifest, write_artefact

FORMAT = "cmcr connection"
VERSION = 2
WEIGHTS = "model.safetensors"
HISTORY = "history.json"
FILES = (MANIFEST, WEIGHTS, HISTORY, "README.md")
_AXES = "own_axes"


class _Manifest(BaseModel):
    """What the manifest says of a connection, besides what every artefact's manifest says."""

    method: str
    overlap: str
    overlap_rows: int
    seed: int
    spaces: Annotated[tuple[ConnectedSpace, ...], Field(min_length=2)]
    projectors: dict[str, dict[str, Any]]
    own_share: float
    base: str | None
    settings: dict[str, Any]
    report: dict[str, Any]


def save(connection: Connection, folder: Path, *, replace: bool = False) -> None:
    """Write a connection to a folder (see `Connection.save`)."""
    known = _Manifest(
        method=connection.method,
        overlap=connection.overlap,
        overlap_rows=connection.overlap_rows,
        seed=connection.seed,
        spaces=connection.spaces,
        projectors={name: each.config() for name, each in connection.projectors.items()},
        own_share=connection.own_share,
        base=connection.base,
        settings=dataclasses.asdict(connection.settings),
        report=dict(connection.report),
    )
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"cmcr {__version__}",
        "torch": torch.__version__,
        **known.model_dump(mode="json"),
    }
    tensors = {
        f"{number}.{key}": value.contiguous().cpu()
        for number, space in enumerate(connection.spaces)
        for key, value in connection.projectors[space.name].state_dict().items()
    }
    for number, space in enumerate(connection.spaces):
        if space.name in connection.own_axes:
            tensors[f"{number}.{_AXES}"] = connection.own_axes[space.name].contiguous().cpu()

    def write_files(aside: Path) -> None:
        (aside / WEIGHTS).write_bytes(serialize(tensors))
        (aside / HISTORY).write_text(json.dumps(dict(connection.history)) + "\n", encoding="utf-8")
        (aside / "README.md").write_text(_card(connection, manifest), encoding="utf-8")

    write_artefact(folder, manifest, write_files, replace=replace)


def load(folder: str | Path) -> Connection:
    """Read a connection from a folder, after checking that it is whole and unchanged. No encoder is attached.

    Raises:
        ArtefactNotFoundError: nothing there.
        FormatError: half-written, not a connection, of another version, or of impossible content.
        IntegrityError: a byte has changed since it was written.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, FORMAT, VERSION, {WEIGHTS, HISTORY})
    try:
        known = _Manifest.model_validate_json(json.dumps(manifest))
        tensors = load_file(folder / WEIGHTS)
        parts: list[dict[str, torch.Tensor]] = [{} for _ in known.spaces]
        for key, value in tensors.items():
            number, _, name = key.partition(".")
            parts[int(number)][name] = value
        names = [space.name for space in known.spaces]
        axes = {name: part.pop(_AXES) for name, part in zip(names, parts, strict=True) if _AXES in part}
        return Connection(
            spaces=known.spaces,
            projectors={
                space.name: _map(space.width, known.projectors[space.name], part)
                for space, part in zip(known.spaces, parts, strict=True)
            },
            overlap=known.overlap,
            method=known.method,
            settings=settings_from(known.method, known.settings),
            seed=known.seed,
            overlap_rows=known.overlap_rows,
            own_share=known.own_share,
            own_axes=axes,
            base=known.base,
            history=json.loads((folder / HISTORY).read_text(encoding="utf-8")),
            report=known.report,
        )
    except (LookupError, TypeError, ValueError, RuntimeError, SafetensorError, CmcrError) as error:
        raise FormatError(f"{folder}: not a usable {FORMAT} ({error}).") from error


def _map(width: int, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> Map:
    if any(value.is_floating_point() and value.dtype != torch.float32 for value in weights.values()):
        raise FormatError("the weights are not float32")
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise FormatError("the weights hold NaN or infinity")
    with torch.device("meta"):  # no random initialisation, which would move the caller's random state
        found = map_from(config)
    if found.width_in != width:
        raise FormatError(f"a projector takes rows {found.width_in} wide, its space has {width}")
    found.load_state_dict(weights, strict=True, assign=True)
    return found.eval().requires_grad_(False)


def _card(connection: Connection, manifest: dict[str, Any]) -> str:
    """Write the model card that stands beside the weights."""
    names, last = " + ".join(space.name for space in connection.spaces), connection.spaces[-1]
    rows = "\n".join(
        f"| {s.name} | {', '.join(s.modalities)} | {s.width} | {s.fingerprint or 'given as arrays'} |"
        for s in connection.spaces
    )
    return f"""---
library_name: cmcr
tags: [cmcr, contrastive, multimodal, embeddings]
---
# {names}, connected through {connection.overlap}

A connection of frozen contrastive spaces ([C-MCR](https://arxiv.org/abs/2305.14381) and beyond): one map per space into a
common space, {connection.width} wide, learned from {connection.overlap_rows} unpaired items of what they share. No pair of
the outer modalities was used.

| space | modalities | width | encoders |
|---|---|---|---|
{rows}

```python
import cmcr

connection = cmcr.load("path/to/this/folder")
z = connection.project(embeddings, space="{last.name}")  # (n, {last.width}) -> (n, {connection.width}) unit rows
```

Method `{connection.method}`, seed {connection.seed}, written by {manifest["written_by"]} with torch {manifest["torch"]};
all settings are in `config.json`.
"""

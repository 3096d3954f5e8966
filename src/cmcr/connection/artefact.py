"""The files of a connection: a manifest, the projectors' weights, the history of the loss and a model card."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from cmcr._version import __version__
from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import ProjectorShape, Settings
from cmcr.errors import CmcrError, FormatError
from cmcr.files import read_manifest, write_artefact

FORMAT = "cmcr connection"
VERSION = 1
WEIGHTS = "model.safetensors"
HISTORY = "history.json"
SIDES = ("left", "right")


class _Manifest(BaseModel):
    """What the manifest says of a connection, besides what every artefact's manifest says."""

    method: str
    overlap: str
    overlap_rows: int
    seed: int
    spaces: tuple[ConnectedSpace, ConnectedSpace]
    projector: ProjectorShape
    settings: Settings


def save(connection: Connection, folder: Path, *, replace: bool = False) -> None:
    """Write a connection to a folder (see `Connection.save`)."""
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"cmcr {__version__}",
        "torch": torch.__version__,
        "method": connection.method,
        "overlap": connection.overlap,
        "overlap_rows": connection.overlap_rows,
        "seed": connection.seed,
        "spaces": [dataclasses.asdict(space) for space in connection.spaces],
        "projector": dataclasses.asdict(next(iter(connection.projectors.values())).shape),
        "settings": dataclasses.asdict(connection.settings),
    }
    tensors = {
        f"{side}.{key}": value.contiguous().cpu()
        for side, space in zip(SIDES, connection.spaces, strict=True)
        for key, value in connection.projectors[space.name].state_dict().items()
    }

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
        return Connection(
            spaces=known.spaces,
            projectors={
                space.name: _projector(side, space.width, known.projector, tensors)
                for side, space in zip(SIDES, known.spaces, strict=True)
            },
            overlap=known.overlap,
            method=known.method,
            settings=known.settings,
            seed=known.seed,
            overlap_rows=known.overlap_rows,
            history=json.loads((folder / HISTORY).read_text(encoding="utf-8")),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError, CmcrError) as error:
        raise FormatError(f"{folder}: not a usable {FORMAT} ({error}).") from error


def _projector(side: str, width: int, shape: ProjectorShape, tensors: dict[str, torch.Tensor]) -> Projector:
    prefix = f"{side}."
    weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    if any(value.is_floating_point() and value.dtype != torch.float32 for value in weights.values()):
        raise FormatError("the weights are not float32")
    with torch.device("meta"):  # no random initialisation, which would move the caller's random state
        projector = Projector(width, shape)
    projector.load_state_dict(weights, strict=True, assign=True)
    return projector.eval().requires_grad_(False)


def _card(connection: Connection, manifest: dict[str, Any]) -> str:
    """Write the model card that stands beside the weights."""
    left, right = connection.spaces
    rows = "\n".join(
        f"| {s.name} | {', '.join(s.modalities)} | {s.width} | {s.fingerprint or 'given as arrays'} |"
        for s in connection.spaces
    )
    return f"""---
library_name: cmcr
tags: [cmcr, contrastive, multimodal, embeddings]
---
# {left.name} + {right.name}, connected through {connection.overlap}

A [C-MCR](https://arxiv.org/abs/2305.14381) connection: two projectors that carry the embeddings of two frozen spaces into
one common space, {connection.width} wide, learned from {connection.overlap_rows} unpaired items of their shared modality.
No pair of the outer modalities was used.

| space | modalities | width | encoders |
|---|---|---|---|
{rows}

```python
import cmcr

connection = cmcr.load("path/to/this/folder")
z = connection.project(embeddings, space="{right.name}")  # (n, {right.width}) -> (n, {connection.width}) unit rows
```

Method `{connection.method}`, seed {connection.seed}, written by {manifest["written_by"]} with torch {manifest["torch"]};
all settings are in `config.json`.
"""

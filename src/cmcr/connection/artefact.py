"""The files of a connection: a manifest, the projectors' weights, the history of the loss and a model card."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize

from cmcr._version import __version__, versions_here
from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.connection.maps import Map, map_from
from cmcr.connection.methods import settings_from
from cmcr.connection.references import check_maps, map_rows, reference_rows
from cmcr.errors import CmcrError, FormatError
from cmcr.files import (
    MANIFEST,
    MEMORY_BYTES,
    Count,
    Sha256,
    StrictRecord,
    read_json,
    read_manifest,
    validated,
    write_artefact,
)

FORMAT = "cmcr connection"
VERSION = 2
WEIGHTS = "model.safetensors"
HISTORY = "history.json"
REFERENCES = "references.safetensors"
FILES = (MANIFEST, WEIGHTS, HISTORY, REFERENCES, "README.md")
_AXES = "own_axes"
_MAPPED = "map"
_PLAIN = ("method", "overlap", "overlap_rows", "seed", "own_share", "base")  # of a connection, as they are


class _Space(StrictRecord):
    name: str
    modalities: tuple[str, ...]
    width: Annotated[Count, Field(ge=1)]
    fingerprint: str | None
    outer_rows: Count


class _Measured(StrictRecord):
    check: str
    where: str
    value: float


class _InShort(StrictRecord):
    spaces: tuple[str, str]
    by: str
    recall: float
    recall_cca: float | None
    items: Count
    held_out: bool
    gaps: dict[str, tuple[float, float]]


class _Report(StrictRecord, extra="allow"):
    measured: tuple[_Measured, ...] = ()
    in_short: tuple[_InShort, ...] = ()


class _Manifest(StrictRecord):
    written_by: str
    torch: str
    method: str
    overlap: str
    overlap_rows: Count
    seed: Annotated[int, Field(ge=0)]
    spaces: Annotated[tuple[_Space, ...], Field(min_length=2)]
    projectors: dict[str, dict[str, Any]]
    own_share: Annotated[float, Field(ge=0, lt=1)]
    base: str | None
    settings: dict[str, Any]
    report: _Report
    versions: Mapping[str, str] = {}
    sha256: dict[Literal["model.safetensors", "history.json", "references.safetensors"], Sha256]


def save(connection: Connection, folder: Path, *, replace: bool = False) -> None:
    """Write a connection to a folder (see `Connection.save`)."""
    report = json.loads(json.dumps(dict(connection.report)), parse_constant=lambda _: None)  # NaN is not JSON
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": f"cmcr {__version__}",
        "torch": torch.__version__,
        **{name: getattr(connection, name) for name in _PLAIN},
        "spaces": [dataclasses.asdict(space) for space in connection.spaces],
        "projectors": {name: each.config() for name, each in connection.projectors.items()},
        "settings": dataclasses.asdict(connection.settings),
        "report": report,
        "versions": dict(connection.versions) or versions_here(),
    }
    weights, references = [], []  # by space
    for space in connection.spaces:
        axes = {_AXES: connection.own_axes[space.name]} if space.name in connection.own_axes else {}
        weights.append({**connection.projectors[space.name].state_dict(), **axes})
        references.append({**_references(connection, space), _MAPPED: map_rows(connection, space.name)})

    def write_files(aside: Path) -> None:
        (aside / WEIGHTS).write_bytes(_numbered(weights))
        (aside / REFERENCES).write_bytes(_numbered(references))
        (aside / HISTORY).write_text(json.dumps(dict(connection.history)) + "\n", encoding="utf-8")
        (aside / "README.md").write_text(_card(connection, manifest), encoding="utf-8")

    write_artefact(folder, manifest, write_files, replace=replace)


def load(folder: str | Path) -> Connection:
    """Read a connection from a folder, after checking that it is whole and unchanged. No encoder is attached.

    Raises:
        ArtefactNotFoundError: nothing there.
        FormatError: half-written, not a connection, of another version, or of impossible content.
        IntegrityError: a byte has changed since it was written, or a map gives other rows than it did.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, FORMAT, VERSION, {WEIGHTS, HISTORY}, {REFERENCES})
    known = validated(_Manifest, manifest, folder)
    try:
        history = read_json(folder / HISTORY, MEMORY_BYTES)
        names = [space.name for space in known.spaces]
        weights = _by_space(folder / WEIGHTS, names)
        references = _by_space(folder / REFERENCES, names) if REFERENCES in known.sha256 else {}
        mapped = {name: kept.pop(_MAPPED) for name, kept in references.items() if _MAPPED in kept}
        axes = {name: kept.pop(_AXES) for name, kept in weights.items() if _AXES in kept}
        connection = Connection(
            spaces=tuple(ConnectedSpace(**space.model_dump()) for space in known.spaces),
            projectors={
                space.name: _map(space.width, known.projectors[space.name], weights[space.name])
                for space in known.spaces
            },
            settings=settings_from(known.method, known.settings),
            own_axes=axes,
            history=TypeAdapter(dict[str, list[float]]).validate_python(history, strict=True),
            report=manifest["report"],
            references={name: kept for name, kept in references.items() if kept},
            versions=known.versions,
            **{name: getattr(known, name) for name in _PLAIN},
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, SafetensorError, CmcrError) as error:
        raise FormatError(f"{folder}: not a usable {FORMAT} ({error}).") from error
    check_maps(connection, mapped)
    return connection


def _references(connection: Connection, space: ConnectedSpace) -> Mapping[str, torch.Tensor]:
    """Give what is kept of the encoders of a space, else ask those that are attached; by modality."""
    if space.name in connection.references or space.name not in connection.encoders:
        return connection.references.get(space.name, {})
    return reference_rows(connection.encoders[space.name], space.modalities)


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


def _numbered(by_space: Sequence[Mapping[str, torch.Tensor]]) -> bytes:
    """Write tensors, named by the number of their space: names of spaces may hold anything."""
    return serialize(
        {f"{n}.{key}": value.contiguous().cpu() for n, part in enumerate(by_space) for key, value in part.items()}
    )


def _by_space(path: Path, names: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
    found: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names}
    for key, value in deserialize(path.read_bytes()).items():  # not mapped: the file may change while the process lives
        number, _, name = key.partition(".")
        found[names[int(number)]][name] = value
    return found


def _card(connection: Connection, manifest: dict[str, Any]) -> str:
    """Write what stands beside the weights for whoever finds the folder; the full card is written for the hub."""
    last = connection.spaces[-1]
    return f"""# {" + ".join(space.name for space in connection.spaces)}, connected through {connection.overlap}

A connection of frozen contrastive spaces ([C-MCR](https://arxiv.org/abs/2305.14381) and beyond), by method
`{connection.method}`; `cmcr info` on this folder says more. Written by {manifest["written_by"]}.

```python
import cmcr

connection = cmcr.load("path/to/this/folder")
z = connection.project(embeddings, space="{last.name}")  # (n, {last.width}) -> (n, {connection.width}) unit rows
```
"""

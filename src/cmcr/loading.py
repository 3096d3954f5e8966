"""Load a saved connection and attach its encoders."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from cmcr.connection import artefact
from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.connection.references import check_encoders
from cmcr.errors import ConfigError, FormatError, unknown_name
from cmcr.files import MANIFEST, artefact_kind
from cmcr.spaces.hub import find_snapshot
from cmcr.spaces.protocol import Space
from cmcr.spaces.registry import ready_space


def load(folder: str | Path, *, revision: str | None = None, encoders: Sequence[Space] = ()) -> Connection:
    """Load a saved connection from a folder or from the model hub, checked to be whole and unchanged.

    The encoders that are given are attached. Those of the miniature spaces and of registered spaces are found without being
    given. All must be the ones (by fingerprint) that made the embeddings of the training; no encoder is downloaded here.

    Args:
        folder: what `Connection.save` has written; or, as a string, the name of a repository that `Connection.push_to_hub`
            has written, such as "owner/name". A folder of that name wins.
        revision: commit, tag or branch of the repository; None is its main branch. A folder has none.
        encoders: spaces to attach, such as `[cmcr.space("clip"), cmcr.space("clap")]`.

    Raises:
        ArtefactNotFoundError: there is nothing at this path, no such repository, or it is out of reach.
        FormatError: half-written, of another version, or not a connection.
        IntegrityError: a byte has changed; or a map, or an encoder that is attached, gives other rows for a fixed input than
            when the connection was saved.
        ConfigError: not a path, an unknown revision, an encoder of another space, or one with another fingerprint or width.
    """
    if not isinstance(folder, str | os.PathLike):
        raise ConfigError(f"expected the path of a folder, got {type(folder).__name__}.")
    named = isinstance(folder, str) and folder.count("/") == 1 and not Path(folder).exists()
    if named or revision is not None:
        folder = _fetched(folder, revision)
    connection = artefact.load(folder)
    attached: dict[str, Space] = {}
    for known in connection.spaces:
        ready = ready_space(known.name) if known.fingerprint is not None else None
        if ready is not None and ready.fingerprint == known.fingerprint:
            attached[known.name] = ready
    spaces = {known.name: known for known in connection.spaces}
    for encoder in encoders:
        if encoder.name not in spaces:
            raise unknown_name("space", encoder.name, spaces)
        check_encoder(encoder, spaces[encoder.name])
        attached[encoder.name] = encoder
    whole = dataclasses.replace(connection, encoders={**connection.encoders, **attached})
    check_encoders(whole, most=1)
    return whole


def _fetched(name: str | Path, revision: str | None) -> Path:
    """Fetch a connection from the hub; of a repository that holds something else, nothing but its `config.json`."""
    first = find_snapshot(name, revision, files=(MANIFEST,))
    kind = artefact_kind(first.folder)
    if kind != artefact.FORMAT:
        raise FormatError(f"{first}: expected the repository of a {artefact.FORMAT}, got a {kind}.")
    return find_snapshot(name, first.revision, files=artefact.FILES).folder


def check_encoder(encoder: Space, known: ConnectedSpace) -> None:
    """Refuse encoders other than those whose embeddings trained the connection, as far as these are known."""
    if known.fingerprint is not None and known.fingerprint != encoder.fingerprint:
        raise ConfigError(
            f"space {known.name!r}: the connection was trained with the encoders {known.fingerprint}, these are "
            f"{encoder.fingerprint}: another model, revision, dtype or preprocessing."
        )
    widths = {encoder.widths[modality] for modality in known.modalities if modality in encoder.widths} - {0}
    if widths - {known.width}:
        raise ConfigError(
            f"space {known.name!r}: the connection takes rows {known.width} wide, these encoders make {sorted(widths)}."
        )

"""Open what cmcr has written."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from cmcr.connection import artefact
from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.errors import ConfigError, unknown_name
from cmcr.spaces.protocol import Space
from cmcr.spaces.registry import ready_space


def load(folder: str | Path, *, encoders: Sequence[Space] = ()) -> Connection:
    """Open a saved connection, checked to be whole and unchanged.

    The encoders that are given get attached, and those of the miniature and of registered spaces by themselves, provided
    that they are the ones (by fingerprint) whose embeddings the connection was trained on. Models are never fetched here.

    Args:
        folder: what `Connection.save` has written.
        encoders: spaces to attach, such as `[cmcr.space("clip"), cmcr.space("clap")]`.

    Raises:
        ArtefactNotFoundError: nothing there.
        FormatError: half-written, of another version, or not a connection.
        IntegrityError: a byte has changed.
        ConfigError: an encoder of another space, or with another fingerprint.
    """
    if not isinstance(folder, str | os.PathLike):
        raise ConfigError(f"expected the path of a folder, got {type(folder).__name__}.")
    return attach(artefact.load(folder), encoders)


def attach(connection: Connection, encoders: Sequence[Space] = ()) -> Connection:
    """Give a connection its encoders, as `load` does.

    Raises:
        ConfigError: an encoder of another space, or with another fingerprint.
    """
    attached = {known.name: ready for known in connection.spaces if (ready := _ready(known)) is not None}
    for encoder in encoders:
        attached[encoder.name] = _checked(encoder, connection)
    return dataclasses.replace(connection, encoders={**connection.encoders, **attached})


def _ready(known: ConnectedSpace) -> Space | None:
    """Find the encoders of a space if they need no fetching and are the same ones."""
    candidate = ready_space(known.name) if known.fingerprint is not None else None
    return candidate if candidate is not None and candidate.fingerprint == known.fingerprint else None


def _checked(encoder: Space, connection: Connection) -> Space:
    """Make sure that an encoder made the embeddings that a connection was trained on, as far as that is known."""
    known = next((space for space in connection.spaces if space.name == encoder.name), None)
    if known is None:
        raise unknown_name("space", encoder.name, (space.name for space in connection.spaces))
    if known.fingerprint is not None and known.fingerprint != encoder.fingerprint:
        raise ConfigError(
            f"space {known.name!r}: the connection was trained with the encoders {known.fingerprint}, these are "
            f"{encoder.fingerprint}: another model, revision or preprocessing."
        )
    widths = {encoder.widths[modality] for modality in known.modalities if modality in encoder.widths} - {0}
    if widths - {known.width}:
        raise ConfigError(
            f"space {known.name!r}: the connection takes rows {known.width} wide, these encoders make {sorted(widths)}."
        )
    return encoder

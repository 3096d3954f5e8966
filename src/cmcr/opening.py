"""Open what cmcr has written."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from cmcr.connection import artefact
from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.errors import ConfigError
from cmcr.spaces.protocol import Space
from cmcr.spaces.registry import space, space_names


def load(folder: str | Path) -> Connection:
    """Open a saved connection, checked to be whole and unchanged.

    Spaces that cmcr knows by name get their encoders attached, provided that these are the ones (by fingerprint) whose
    embeddings the connection was trained on.

    Args:
        folder: what `Connection.save` has written.

    Raises:
        ArtefactNotFoundError: nothing there.
        FormatError: half-written, of another version, or not a connection.
        IntegrityError: a byte has changed.
    """
    if not isinstance(folder, str | os.PathLike):
        raise ConfigError(f"expected the path of a folder, got {type(folder).__name__}.")
    connection = artefact.load(folder)
    encoders = {known.name: encoder for known in connection.spaces if (encoder := _encoder_of(known)) is not None}
    return dataclasses.replace(connection, encoders=encoders)


def _encoder_of(known: ConnectedSpace) -> Space | None:
    """Open the encoders of a space if they are at hand and are the same ones."""
    if known.fingerprint is None or known.name not in space_names():
        return None
    candidate = space(known.name)
    return candidate if candidate.fingerprint == known.fingerprint else None

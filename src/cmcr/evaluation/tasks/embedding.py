"""Items of a data set, embedded in their own space; those that cannot be embedded are left out and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError
from cmcr.progress import Progress
from cmcr.spaces.protocol import Space
from cmcr.spaces.tower import encode_batches_of

_BATCH = 64


class NotConnectedError(ConfigError):
    """A connection without the modalities of a task."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """Embeddings of one modality.

    Attributes:
        space: the space's name.
        modality: what was embedded.
        rows: `(n, D)` float32 unit rows.
        kept: `(n,)` position in the record of each row's item.
        failed: by position in the record, why an item has no row.
    """

    space: str
    modality: str
    rows: NDArray[np.float32]
    kept: NDArray[np.int64]
    failed: Mapping[int, str]

    @classmethod
    def whole(cls, space: str, modality: str, rows: NDArray[np.floating]) -> Embedded:
        """Take embeddings of which none is missing."""
        return cls(space, modality, rows.astype(np.float32, copy=False), np.arange(len(rows)), {})

    def only(self, rows: NDArray[np.int64] | Sequence[int]) -> Embedded:
        """Select some of the rows."""
        return Embedded(self.space, self.modality, self.rows[rows], self.kept[rows], self.failed)


def spaces_for(connection: Connection, first: str, second: str, *, within: bool = False) -> tuple[str, str]:
    """Choose the spaces in which two modalities are embedded.

    Args:
        connection: whose spaces.
        first: a modality.
        second: another one.
        within: both in one space, which is then compared with itself; else in two, so that the comparison goes through the
            connection.

    Raises:
        NotConnectedError: the connection has no such spaces.
    """
    for one in connection.spaces:
        for other in connection.spaces:
            if (one is other) == within and first in one.modalities and second in other.modalities:
                return one.name, other.name
    has = "; ".join(f"{known.name}: {', '.join(known.modalities)}" for known in connection.spaces)
    how = "embeds both" if within else "does not connect"
    who = "no space of the connection" if within else "the connection"
    raise NotConnectedError(f"{who} {how} {first} and {second}: it has {has}.")


def encoder_of(connection: Connection, space: str) -> Space:
    """Find the encoders of a space.

    Raises:
        ConfigError: they are not attached.
    """
    encoder = connection.encoders.get(space)
    if not isinstance(encoder, Space):
        raise ConfigError(
            f"the encoders of space {space!r} are not attached: name their model, such as --model {space}=PATH, or "
            "cmcr.load(folder, encoders=[...])."
        )
    return encoder


def embed_items(
    connection: Connection, space: str, modality: str, items: Sequence[Any], progress: Progress, what: str | None = None
) -> Embedded:
    """Embed items with the encoders of a space, leaving out those that cannot be read.

    Args:
        connection: with its encoders attached.
        space: whose encoders.
        modality: of the items.
        items: as `space.encode` reads them.
        progress: called with a stage named after `what` and the space.
        what: the modality, if None.

    Raises:
        ConfigError: the encoders are not attached, or no item can be embedded.
    """
    parts, failed, start = [], dict[int, str](), 0
    batches = (items[at : at + _BATCH] for at in range(0, len(items), _BATCH))
    for encoded in encode_batches_of(encoder_of(connection, space), batches, modality):
        failed.update({start + position: str(error) for position, error in encoded.failures.items()})
        start += len(encoded.rows) + len(encoded.failures)
        if len(encoded.rows):  # the width of an empty batch may not be known
            parts.append(encoded.rows)
        progress(f"{what or modality} in {space}", start / len(items))
    if not parts:
        reason = next(iter(failed.values()), "there are none")
        raise ConfigError(f"none of the {len(items)} {modality} items could be embedded with {space!r}: {reason}")
    kept = np.setdiff1d(np.arange(len(items)), list(failed))
    return Embedded(space, modality, torch.cat(parts).numpy(), kept, failed)

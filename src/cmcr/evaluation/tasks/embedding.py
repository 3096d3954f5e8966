"""Items of a data set, embedded in their own space; those that cannot be are left out and told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError, SampleError
from cmcr.spaces.protocol import Space
from cmcr.spaces.tower import encode_batches_of

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done, in (0, 1]."""


class NotConnectedError(ConfigError):
    """A connection that does not have the modalities of a task."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """Embeddings of one modality.

    Attributes:
        space: the space's name.
        modality: what was embedded.
        rows: `(n, D)` float32 unit rows.
        kept: `(n,)` which items they are.
        failed: by position, why an item has no row.
    """

    space: str
    modality: str
    rows: NDArray[np.float32]
    kept: NDArray[np.int64]
    failed: Mapping[int, str]


def embed_items(
    space: Space,
    modality: str,
    items: Sequence[Any],
    *,
    batch_size: int = 64,
    progress: Callable[[float], None] | None = None,
) -> Embedded:
    """Embed items, leaving out those that cannot be read.

    Raises:
        ConfigError: none of them can be.
    """
    parts, failed, start = [], dict[int, str](), 0
    for encoded in encode_batches_of(space, _batches(items, batch_size), modality):
        failed.update({start + place: str(error) for place, error in encoded.failures.items()})
        start += len(encoded.rows) + len(encoded.failures)
        if len(encoded.rows):
            parts.append(encoded.rows)
        if progress is not None:
            progress(start / len(items))
    if not parts:
        reason = next(iter(failed.values()), "there are none")
        raise ConfigError(f"none of the {len(items)} {modality} items could be embedded with {space.name!r}: {reason}")
    kept = np.array([position for position in range(len(items)) if position not in failed], dtype=np.int64)
    return Embedded(space.name, modality, torch.cat(parts).numpy(), kept, failed)


def encoder_for(connection: Connection, modality: str, space: str | None = None) -> Space:
    """Find the encoders that embed a modality in a connection.

    Args:
        connection: with its encoders attached.
        modality: one of the connection's.
        space: whose, needed for the overlap.

    Raises:
        NotConnectedError: no space of the connection embeds it.
        ConfigError: its encoders are not attached.
    """
    owners = [known.name for known in connection.spaces if modality in known.modalities]
    if not owners or (space is not None and space not in owners):
        raise NotConnectedError(
            f"the connection of {' and '.join(s.name for s in connection.spaces)} has no {modality}"
            + (f" in space {space!r}." if space else ".")
        )
    chosen = space or owners[0]
    if chosen not in connection.encoders:
        raise ConfigError(
            f"the encoders of space {chosen!r} are not attached: name their model, such as --model {chosen}=PATH, or "
            "cmcr.load(folder, encoders=[...])."
        )
    encoder = connection.encoders[chosen]
    if not isinstance(encoder, Space):
        raise ConfigError(f"the encoders of space {chosen!r} are no space: they have no widths by modality.")
    return encoder


def crossing_spaces(connection: Connection, first: str, second: str) -> tuple[str, str]:
    """Choose the spaces that embed two modalities so that the comparison goes through the connection.

    Returns:
        names of two different spaces.

    Raises:
        NotConnectedError: the connection does not have both modalities, or both only in one space.
    """
    owners = {
        modality: [known.name for known in connection.spaces if modality in known.modalities]
        for modality in (first, second)
    }
    for one in owners[first]:
        for other in owners[second]:
            if one != other:
                return one, other
    raise NotConnectedError(
        f"the connection of {' and '.join(s.name for s in connection.spaces)} does not connect {first} and {second}: it has "
        + "; ".join(f"{s.name}: {', '.join(s.modalities)}" for s in connection.spaces)
        + "."
    )


def shared_space(connection: Connection, first: str, second: str) -> str:
    """Find the space that embeds both modalities itself.

    Raises:
        NotConnectedError: there is none.
    """
    for known in connection.spaces:
        if first in known.modalities and second in known.modalities:
            return known.name
    raise NotConnectedError(f"no space of the connection embeds both {first} and {second}.")


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield [_readable(item) for item in items[start : start + size]]


def _readable(item: Any) -> Any:
    """Call what is to be made only when it is needed, such as a crop of a picture."""
    if not callable(item):
        return item
    try:
        return item()
    except SampleError as error:
        return error

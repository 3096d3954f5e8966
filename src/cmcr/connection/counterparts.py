"""The semantically consistent counterparts of a whole overlap: part by part, so that what is done can be kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cmcr.arrays import StoredRows
from cmcr.connection.checkpoint import Checkpoint
from cmcr.connection.consistency import SoftmaxMean
from cmcr.connection.peers import Peers
from cmcr.connection.residence import Empty, fits_on
from cmcr.connection.settings import Settings
from cmcr.connection.stored import RowsBetween, StoredMemory
from cmcr.errors import ConfigError


@dataclass(frozen=True)
class Work:
    """How counterparts are computed.

    Attributes:
        settings: of semantic consistency.
        device: that computes.
        peers: the processes that compute together.
        empty: makes the room for the result.
        checkpoint: where what is done is kept, and looked for.
    """

    settings: Settings
    device: torch.device
    peers: Peers
    empty: Empty
    checkpoint: Checkpoint | None = None


def consistent_rows(
    items: Tensor,
    memory: Tensor | StoredRows,
    work: Work,
    name: str,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Give every overlap item of a space its semantically consistent counterpart.

    Args:
        items: `(n, D)` unit rows, anywhere.
        memory: `(N, D)` all unit rows of the outer modality; each process takes its share of them.
        work: how, where and with whom.
        name: of the rows in the checkpoint.
        progress: called with the share done, in (0, 1].

    Returns:
        `(n, D)` float32, the same in all processes.
    """
    own = _own_share(memory, work.peers)
    if isinstance(own, Tensor) and own.device != work.device and fits_on(work.device, 4 * own.numel()):
        own = own.to(work.device, torch.float32)  # else its blocks are brought there one by one
    mean = SoftmaxMean.of(
        items,
        own,
        work.settings.consistency_temperature,
        normalize=work.settings.normalize_consistency,
        precision=work.settings.precision,
        device=work.device,
        dtype=torch.float32,
    )
    result = work.empty(*items.shape)
    mean.fill(result, work.peers, progress, work.checkpoint, name)
    return result


def _own_share(memory: Tensor | StoredRows, peers: Peers) -> Tensor | StoredRows:
    """Take this process's rows of a memory."""
    if peers.size == 1:
        return memory
    part = peers.part_of(len(memory))
    if isinstance(memory, Tensor):
        return memory[part]
    if not isinstance(memory, StoredMemory):
        raise ConfigError(f"{type(memory).__name__}: several processes can share a cmcr.Memory, but not these rows.")
    return RowsBetween(memory, part)

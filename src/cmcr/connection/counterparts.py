"""The semantically consistent counterparts of a whole overlap: part by part, so that what is done can be kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cmcr.connection.checkpoint import Checkpoint
from cmcr.connection.enhancement import semantic_consistency
from cmcr.connection.peers import Peers
from cmcr.connection.residence import Empty
from cmcr.connection.settings import Settings
from cmcr.connection.stored import RowsBetween, StoredMemory
from cmcr.embeddings import StoredRows
from cmcr.errors import ConfigError

ROWS_AT_ONCE = 49_152
"""Items whose counterparts are computed, and kept, together: so many a GPU holds while the memory passes by once."""


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
    if isinstance(own, Tensor):
        own = own.to(work.device, torch.float32)
    result = work.empty(*items.shape)
    for number, start in enumerate(range(0, len(items), ROWS_AT_ONCE)):
        part = slice(start, min(start + ROWS_AT_ONCE, len(items)))
        kept_as = f"{name}-consistent-{number:05d}"
        rows = work.checkpoint.kept(kept_as) if work.checkpoint else None
        if not _all_have(rows, work) or rows is None:
            asked = items[part].to(work.device, torch.float32)
            rows = _consistent(asked, own, work, _within(progress, part, len(items)))
            if work.checkpoint:
                work.checkpoint.keep(kept_as, rows)
        elif progress is not None:
            progress(part.stop / len(items))
        result[part] = rows
    return result


def _consistent(
    asked: Tensor, own: Tensor | StoredRows, work: Work, progress: Callable[[float], None] | None
) -> Tensor:
    """Ask all processes' memories together; `own` is this one's share."""
    return semantic_consistency(
        asked,
        own,
        work.settings.consistency_temperature,
        normalize=work.settings.normalize_consistency,
        precision=work.settings.precision,
        peers=work.peers,
        progress=progress,
    )


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


def _all_have(rows: Tensor | None, work: Work) -> bool:
    """Tell whether every process has found kept rows; else all compute them, for they do it together."""
    missing = torch.tensor([int(rows is None)], device=work.device)
    return not work.peers.max_(missing).item()


def _within(progress: Callable[[float], None] | None, part: slice, count: int) -> Callable[[float], None] | None:
    """Report the share of one part as a share of all rows."""
    if progress is None:
        return None
    return lambda share: progress((part.start + share * (part.stop - part.start)) / count)

"""Several processes fail together: none waits in vain for one that has failed alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cmcr.connection.peers import Peers
from cmcr.errors import WorkerError


@contextmanager
def failing_together(peers: Peers, device: torch.device | str) -> Iterator[None]:
    """Let all processes fail where one does: it by its own error, the others by one that names it.

    All must come here; inside, nothing may be exchanged. At the end all wait for each other.

    Args:
        peers: the processes.
        device: on which they exchange.

    Raises:
        WorkerError: another process has failed.
    """
    try:
        yield
    except Exception:
        _highest(peers, device, peers.rank + 1)
        raise
    if failed := _highest(peers, device, 0):
        raise WorkerError(
            f"process {failed - 1} of {peers.size} has failed, so process {peers.rank} stops; its own message says why."
        )


def _highest(peers: Peers, device: torch.device | str, number: int) -> int:
    if peers.size == 1:
        return number
    return int(peers.max_(torch.tensor([number], device=device)).item())

"""The group of processes that a launcher such as torchrun has started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from cmcr.connection.peers import Peers, peers_here
from cmcr.embeddings import choose_device
from cmcr.errors import ConfigError, WorkerError


@contextmanager
def launched_group(device: str = "auto") -> Iterator[tuple[Peers, str]]:
    """Join the other processes that `torchrun` has started; alone, nothing happens.

    The launcher says by the environment variables WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT who belongs
    together. On GPUs each process takes the one with its LOCAL_RANK, and they talk through NCCL, else through Gloo.

    Args:
        device: as the user gave it.

    Yields:
        the processes, and the device of this one.

    Raises:
        ConfigError: a device on which several processes cannot compute.
        DeviceError: more processes than GPUs.
        WorkerError: another process of the group was lost.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Peers(), device
        return
    own = _own_device(device)
    gpu = own.startswith("cuda")
    if gpu:
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if gpu else "gloo", device_id=torch.device(own) if gpu else None)
    peers = peers_here()
    try:
        yield peers, own
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise WorkerError(
                f"process {peers.rank} of {peers.size} lost another one, whose own message says why. Run it again."
            ) from error
        raise
    # Only in the end: after a failure the others could be waited for in vain.
    distributed.destroy_process_group()


def _own_device(device: str) -> str:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if device not in ("auto", "cuda"):
        raise ConfigError(
            f"device: several processes compute on 'cuda', each on its own GPU, or 'cpu', got {device!r}."
        )
    own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    choose_device(own)
    return own

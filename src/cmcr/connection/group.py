"""The group of processes that a launcher such as torchrun has started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from cmcr.connection.peers import Peers, peers_here
from cmcr.engine.device import choose_device
from cmcr.errors import ConfigError, WorkerError


@dataclass(frozen=True)
class Launch:
    """How many processes were started together, by what the launcher says.

    Attributes:
        size: on all machines.
        here: on this machine.
        rank: number of this process, from 0.
        local_rank: its number on this machine, from 0.
    """

    size: int = 1
    here: int = 1
    rank: int = 0
    local_rank: int = 0

    def device(self, given: str) -> str:
        """Tell on which device this process computes.

        Args:
            given: as the user gave it.

        Raises:
            ConfigError: a device on which several processes cannot compute.
            DeviceError: more processes than GPUs.
        """
        if self.size == 1:
            return given
        if given == "cpu" or (given == "auto" and not torch.cuda.is_available()):
            return "cpu"
        if given not in ("auto", "cuda"):
            raise ConfigError(
                f"device: several processes compute on 'cuda', each on its own GPU, or 'cpu', got {given!r}."
            )
        own = f"cuda:{self.local_rank}"
        choose_device(own)
        return own


def launch() -> Launch:
    """Read from the environment how this process was started.

    Raises:
        ConfigError: a variable is missing, or is no number that can be.
    """
    size = _number("WORLD_SIZE", 1) if "WORLD_SIZE" in os.environ else 1
    if size == 1:
        return Launch()
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise ConfigError(f"{name}: WORLD_SIZE is {size}, but {name} is not set. {_ADVICE}")
    rank = _number("RANK", 0, size - 1)
    _number("MASTER_PORT", 0, 65_535)
    here = _number("LOCAL_WORLD_SIZE", 1, size) if "LOCAL_WORLD_SIZE" in os.environ else size
    local = _number("LOCAL_RANK", 0, here - 1) if "LOCAL_RANK" in os.environ else 0
    return Launch(size, here, rank, local)


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
        ConfigError: a device on which several processes cannot compute, or what the launcher says makes no sense.
        DeviceError: more processes than GPUs.
        WorkerError: the others cannot be reached, or another process of the group was lost.
    """
    started = launch()
    own = started.device(device)
    if started.size == 1:
        yield Peers(), own
        return
    gpu = own.startswith("cuda")
    if gpu:
        torch.cuda.set_device(own)
    try:
        distributed.init_process_group("nccl" if gpu else "gloo", device_id=torch.device(own) if gpu else None)
    except distributed.DistError as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise WorkerError(
            f"process {started.rank} of {started.size} cannot reach the others through {where} ({error})."
        ) from error
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


_ADVICE = "torchrun sets it: start with torchrun --nproc-per-node N -m cmcr ..., or unset WORLD_SIZE to run alone."


def _number(name: str, least: int, most: int | None = None) -> int:
    """Read a whole number from the environment."""
    text = os.environ[name]
    number = int(text) if text.isascii() and text.isdigit() else -1
    if number < least or (most is not None and number > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(
            f"{name}: expected a whole number {span} in this environment variable, got {text!r}. {_ADVICE}"
        )
    return number

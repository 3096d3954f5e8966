"""What this process may compute on: devices, cores and RAM, with the limits of a container."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil
import torch

from cmcr.errors import ConfigError, DeviceError

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def choose_device(device: str | torch.device) -> torch.device:
    """Resolve `"auto"` to the best device of this machine (CUDA, then Apple's MPS, then CPU); check any other.

    Raises:
        DeviceError: the name is not a device, or this machine has none of that kind.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise _no_device(device) from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {device!r}: this machine has {torch.cuda.device_count()} CUDA device(s). Use 'auto'."
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device {device!r} is not available on this machine. Use 'auto' or 'cpu'.")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise _no_device(device)
    return chosen


def _no_device(device: object) -> DeviceError:
    return DeviceError(f"unknown device {device!r}: expected 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'.")


def available_ram_bytes() -> int:
    """RAM that this process can have now without swapping; in a container, what its limit leaves."""
    free = psutil.virtual_memory().available
    for limit in _limits("memory.max", "memory.limit_in_bytes"):
        free = min(free, max(0, limit - psutil.Process().memory_info().rss))
    return free


@cache
def cores() -> int:
    """Cores that this process may use: its affinity, or a container's share of time where that is lower."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = []
    for group in _groups():
        with contextlib.suppress(OSError, ValueError):  # "max 100000" has no limit
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
            quotas.append(math.ceil(int(quota) / int(period)))
        with contextlib.suppress(OSError, ValueError):  # version 1 of control groups
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
            if int(quota) > 0:
                quotas.append(math.ceil(int(quota) / int(period)))
    return max(1, min([affinity, *quotas]))


@contextmanager
def memory_errors() -> Iterator[None]:
    """Name the settings by which less memory is needed where there is too little."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise ConfigError(
                f"settings: the training needs more memory than there is. Lower batch_size, width, hidden or epochs. ({error})"
            ) from error
        raise


def _limits(*names: str) -> Iterator[int]:
    """Read the limits, in bytes, of the control groups that this process is in; "max" is none."""
    for group in _groups():
        for name in names:
            with contextlib.suppress(OSError, ValueError):
                yield int((group / name).read_text(encoding="ascii"))


def _groups() -> Iterator[Path]:
    """Walk through this process's control groups of Linux, from its own up to the root: each may have a limit.

    A container sees its own group as the root, or, by the path that the host knows, nothing: then only the root is there.
    """
    lines = ["0::/"]
    with contextlib.suppress(OSError, UnicodeError):
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        home = _GROUPS / controllers if controllers else _GROUPS  # version 1 has a tree for each controller
        names = [name for name in path.split("/") if name not in ("", "..")]
        for depth in range(len(names), -1, -1):
            yield home.joinpath(*names[:depth])

"""How much RAM, and how much memory of a GPU, this process can have."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from cmcr.errors import DeviceError

_OWN_GROUPS = Path("/proc/self/cgroup")


class _Version(NamedTuple):
    """Where a version of Linux's control groups tells what, in bytes."""

    home: Path
    limit: str
    used: str
    cache: str  # the line of memory.stat with the files that would be given back


_VERSION_1 = _Version(
    Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)
_VERSION_2 = _Version(Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file")


def ram_bytes() -> int:
    """Tell how much RAM this process can have: the machine's, or a container's limit where that is lower."""
    limits = (_number(group / version.limit) for group, version in _groups())
    return min([_physical_ram_bytes(), *(limit for limit in limits if limit is not None)])


def available_ram_bytes() -> int:
    """Tell how much RAM can be had now without swapping, as far as the system and its limits for this process tell."""
    if sys.platform == "win32":
        return int(_windows_memory().free)
    if not sys.platform.startswith("linux"):
        return _physical_ram_bytes() // 2  # macOS does not say; half of all is what a busy machine can spare
    left = (_left_in(group, version) for group, version in _groups())
    return min([_linux_available(), *(bytes_ for bytes_ in left if bytes_ is not None)])


def gpu_bytes(device: torch.device) -> int | None:
    """Tell how much memory a GPU has; None for a CPU, and for a GPU that shares the RAM."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def _physical_ram_bytes() -> int:
    if sys.platform == "win32":
        return int(_windows_memory().total)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _groups() -> Iterator[tuple[Path, _Version]]:
    """Walk through the control groups that this process is in, from its own up to the root: each may have a limit.

    A container sees its own group as the root, or, by the path that the host knows, nothing: then only the root is there.
    """
    lines = ["0::/", "0:memory:/"]
    with contextlib.suppress(OSError, UnicodeError):
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        version = _VERSION_1 if controllers else _VERSION_2
        names = [name for name in path.split("/") if name not in ("", "..")]
        for depth in range(len(names), -1, -1):
            yield version.home.joinpath(*names[:depth]), version


def _number(file: Path) -> int | None:
    """Read a number of bytes; None where there is no such file, or it says "max"."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("total", "free", "page_total", "page_free", "virtual", "virtual_free")),
        ("extended_free", ctypes.c_uint64),
    )


def _windows_memory() -> _MemoryStatus:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    windll = ctypes.windll  # type: ignore[attr-defined, unused-ignore]  # there on Windows only
    windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return status


def _linux_available() -> int:
    """MemAvailable counts what the cache of files would give back; sysconf's free pages do not."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return _physical_ram_bytes()


def _left_in(group: Path, version: _Version) -> int | None:
    """What a container or a scheduler leaves to this process; of the cache of files, what it would give back counts."""
    limit = _number(group / version.limit)
    if limit is None:
        return None
    used = _number(group / version.used) or 0
    with contextlib.suppress(OSError, ValueError, KeyError):
        counts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        used -= int(counts[version.cache])
    return max(0, limit - max(0, used))


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

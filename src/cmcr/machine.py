"""How much RAM, and how much memory of a GPU, this process can have."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

import torch

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""What limits a container on Linux: version 2, then version 1 of control groups."""


def ram_bytes() -> int:
    """Tell how much RAM this process can have: the machine's, or a container's limit where that is lower."""
    return min([_physical_ram_bytes(), *_limits()])


def available_ram_bytes() -> int:
    """Tell how much RAM can be had now without swapping, as far as the system and its limits for this process tell."""
    if sys.platform == "win32":
        return int(_windows_memory().free)
    if not sys.platform.startswith("linux"):
        return _physical_ram_bytes() // 2  # macOS does not say; half of all is what a busy machine can spare
    return min(_linux_available(), _control_group_available())


def gpu_bytes(device: torch.device) -> int | None:
    """Tell how much memory a GPU has; None for a CPU, and for a GPU that shares the RAM."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def _physical_ram_bytes() -> int:
    if sys.platform == "win32":
        return int(_windows_memory().total)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits() -> list[int]:
    """Read the limits of control groups: a number of bytes, or "max"; none where there are no such files."""
    found = []
    for place in _CGROUP_LIMITS:
        try:
            found.append(int(Path(place).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return found


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


def _control_group_available() -> int:
    """What a container or a scheduler leaves to this process; of the cache of files, what it would give back counts."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        home = Path(_CGROUP_LIMITS[0]).parent
        limit, used = (int((home / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
        counts = dict(line.split() for line in (home / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, limit - used + int(counts["inactive_file"]))
    return ram_bytes()

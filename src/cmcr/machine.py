"""How much RAM, and how much memory of a GPU, this process can have."""

from __future__ import annotations

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


def gpu_bytes(device: torch.device) -> int | None:
    """Tell how much memory a GPU has; None for a CPU, and for a GPU that shares the RAM."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def _physical_ram_bytes() -> int:
    if sys.platform == "win32":
        return _windows_ram_bytes()
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


def _windows_ram_bytes() -> int:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    windll = ctypes.windll  # type: ignore[attr-defined, unused-ignore]  # there on Windows only
    windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status.total)

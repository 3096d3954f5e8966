"""Peak memory of a piece of work, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_SPEED = Path(__file__).parents[1] / "speed.py"


def peak_of(part: str, **arguments: Any) -> float | None:
    """Run the `work` of a part in a child.

    Returns:
        what its `work` raised the child's peak memory by, in MiB; None where the child died, for want of memory most likely.
    """
    call = [sys.executable, str(_SPEED), "--peak-of", part, json.dumps(arguments)]
    done = subprocess.run(call, check=False, capture_output=True, text=True)
    if done.returncode < 0:
        return None
    if done.returncode:
        raise RuntimeError(f"the child that measures the memory of {part} failed:\n{done.stderr}")
    return float(done.stdout)


def raised_by(small: Callable[[], object], work: Callable[[], object], device: torch.device) -> float:
    """Tell by how much some work raises this process's peak beyond that of a small piece of it, in MiB.

    The small one loads libraries and makes their buffers. On a GPU it is the memory of torch's tensors there.
    """
    small()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1)
    before = _peak_bytes()
    work()
    return round((_peak_bytes() - before) / 2**20, 1)


def _peak_bytes() -> int:
    # Linux hands ru_maxrss down to children: theirs begins at their parent's peak. VmHWM is the process's own.
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # which Windows has not

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

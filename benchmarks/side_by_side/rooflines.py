"""How fast this machine multiplies matrices of the sizes of our tiles: what no way can be faster than."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from cmcr._version import __version__
from cmcr.engine.precision import fast_float32
from side_by_side.measuring import Line, Run, clock, figure

DEFAULT, FLOAT32, BFLOAT16 = "float32_default", "float32", "bfloat16"
"""torch.mm as torch comes (MKL on most CPUs), through oneDNN (the same elsewhere), and of bfloat16."""

_WAYS: dict[str, tuple[torch.dtype, Callable[[], AbstractContextManager[None]]]] = {
    DEFAULT: (torch.float32, nullcontext),
    FLOAT32: (torch.float32, fast_float32),
    BFLOAT16: (torch.bfloat16, fast_float32),
}
_REPEATS = 6


class Rooflines:
    """The best rates seen so far; measured again between the parts, since machines are not always equally fast."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._side = 256 if run.small else 2048 if run.device.type == "cpu" else 8192
        self._products = {name: self._pair(dtype) for name, (dtype, _) in _WAYS.items()}
        self._seconds: dict[tuple[str, int], float] = {}
        self.measured = 0

    def measure(self) -> None:
        """Measure all rates, in turn."""
        self.measured += 1
        for _ in range(_REPEATS):
            for name, (_, library) in _WAYS.items():
                with library():
                    for place, product in enumerate(self._products[name]):
                        taken, _ = clock(product, self._run.device)
                        self._seconds[name, place] = min(taken, self._seconds.get((name, place), taken))

    def rate(self, name: str) -> float:
        """Tell operations a second of the two products of a tile, one after the other."""
        return 2 * 2 * self._side**2 * self._run.width / (self._seconds[name, 0] + self._seconds[name, 1])

    def share(self, line: Line) -> float | None:
        """Tell how long the operations of a line take at these rates, as a share of what they took."""
        if "seconds" not in line or "operations" not in line:
            return None
        return figure(sum(count / self.rate(name) for name, count in line["operations"].items()) / line["seconds"])

    def lines(self) -> Iterator[Line]:
        """Give the rates."""
        shape = f"{self._side}x{self._run.width} @ {self._run.width}x{self._side} and back"
        for name in _WAYS:
            yield {
                "part": "rooflines",
                "way": name,
                "products": shape,
                "gflops": figure(self.rate(name) / 1e9),
                "times_measured": self.measured,
            }

    def _pair(self, dtype: torch.dtype) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
        """Prepare the product of rows to a tile, and of the tile back to rows."""
        drawn = torch.Generator().manual_seed(0)
        first, second = (
            torch.randn(self._side, self._run.width, generator=drawn).to(self._run.device, dtype) for _ in range(2)
        )
        tile = torch.randn(self._side, self._side, generator=drawn).to(self._run.device, dtype)
        out, back = torch.empty_like(tile), torch.empty_like(first)
        return lambda: torch.mm(first, second.T, out=out), lambda: torch.mm(tile, second, out=back)


def machine(device: torch.device) -> Line:
    """Name what is measured on."""
    names = {"cpu": _processor(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if device.type == "cuda":
        names["gpu"] = torch.cuda.get_device_name(device)
    versions = {"torch": torch.__version__, "cmcr": __version__, "python": platform.python_version()}
    return {"part": "machine", **names, **versions, "platform": platform.platform(), "device": str(device)}


def _processor() -> str:
    known = Path("/proc/cpuinfo")
    if known.exists():
        for line in known.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

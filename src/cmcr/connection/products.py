"""Matrix products of float32 on a CPU through oneDNN, which is faster than torch's default and as exact."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, get_args

import torch

from cmcr.errors import ConfigError

Precision = Literal["float32", "bfloat16"]
"""In what the large products are computed: float32, or faster and coarser in bfloat16 with sums in float32."""

LOWEST_TEMPERATURE_IN_BFLOAT16 = 0.001
"""Of a softmax over cosines: below it the rounding of unit rows to bfloat16 decides which of them is the nearest."""

_LARGEST_ERROR = 2e-5  # of float32 products of unit rows; bfloat16 is off by some 2e-3
_onednn: Any = torch.backends.mkldnn  # torch before 2.9 has no switch there, and is left as it is
_lock = threading.RLock()
_inside = 0
_earlier = "none"


def check_precision(precision: object) -> None:
    """Make sure that a precision is one.

    Raises:
        ConfigError: it is not.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision: expected one of {', '.join(get_args(Precision))}, got {precision!r}.")


@contextmanager
def fast_float32() -> Iterator[None]:
    """Let torch send float32 products on the CPU through oneDNN, where that is as exact as float32 should be.

    torch takes MKL unless bfloat16 is allowed inside of float32 products. On most CPUs that permission only changes the
    library: oneDNN computes in float32, 1.1 to 2.5 times as fast. On CPUs whose matrix units know bfloat16 it may really
    round, so the first use measures the error and leaves the permission alone if it is too large.

    The setting belongs to the whole process; it is put back when the last of the blocks that are inside at the same time
    is left. Until then `torch.get_float32_matmul_precision`, which knows no setting of a part, may raise RuntimeError. The
    settings of GPUs are not touched.
    """
    if not _exact_through_onednn():
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _earlier
    with _lock:
        if _inside == 0:
            # What is inherited from the setting above is not one of its own: "none" goes on inheriting.
            own = _onednn.matmul.fp32_precision
            _earlier = "none" if own == _onednn.fp32_precision else own
            _onednn.matmul.fp32_precision = "bf16"
        _inside += 1


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside == 0:
            _onednn.matmul.fp32_precision = _earlier


@cache
def _exact_through_onednn() -> bool:
    """Measure whether products stay in float32 when torch may use oneDNN for them."""
    if not _onednn.is_available() or not hasattr(_onednn, "matmul"):
        return False
    drawn = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(1024, 512, generator=drawn, dtype=torch.float32), dim=1)
    exact = rows.double() @ rows.double().T
    with _lock:
        _enter()
        try:
            found = rows @ rows.T
        finally:
            _leave()
    return bool((found - exact).abs().max() < _LARGEST_ERROR)

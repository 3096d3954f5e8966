"""In what precision and under which settings of torch the large products are computed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Literal, get_args

import torch

from cmcr.engine.device import cores
from cmcr.errors import ConfigError

Precision = Literal["float32", "bfloat16"]
"""What the large products are computed in: float32, or faster and coarser in bfloat16 with sums in float32."""

LOWEST_TEMPERATURE_IN_BFLOAT16 = 0.001
"""Of a softmax over cosines: below it the rounding of unit rows to bfloat16 decides which of them is the nearest."""

_LARGEST_ERROR = 2e-5  # of float32 products of unit rows; bfloat16 is off by some 2e-3
_onednn: Any = torch.backends.mkldnn  # torch before 2.9 has no switch there, and is left as it is
_lock = threading.RLock()
_drawing = threading.Lock()
_inside = 0
_earlier = "none"


def check_precision(precision: object) -> None:
    """Raise a `ConfigError` unless a precision is one."""
    if precision not in get_args(Precision):
        raise ConfigError(f"precision: expected one of {', '.join(get_args(Precision))}, got {precision!r}.")


@contextmanager
def guarded_torch_state(device: torch.device) -> Iterator[None]:
    """Shield a computation from what the caller has set in torch: inference mode, no_grad, autocast.

    Inside, torch uses no more threads than this process has cores (a container's limit counts): more would be throttled.

    Args:
        device: that computes; autocast is switched off on it and on the CPU.
    """
    threads = torch.get_num_threads()
    with ExitStack() as held:
        held.enter_context(torch.inference_mode(False))
        held.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type}:
            held.enter_context(torch.autocast(kind, enabled=False))
        if threads > cores():
            held.callback(torch.set_num_threads, threads)
            torch.set_num_threads(cores())
        yield


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Let torch draw weights on the CPU from a seed, in one thread at a time; the caller's random state is put back."""
    with _drawing, torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would reseed the GPUs too, for which nothing is restored here.
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def fast_float32() -> Iterator[None]:
    """Let torch send float32 products on the CPU through oneDNN, where that is as exact as float32 should be.

    torch takes MKL unless bfloat16 is allowed inside of float32 products. On most CPUs that permission only changes the
    library: oneDNN computes in float32, 1.1 to 2.5 times as fast. CPUs whose matrix units know bfloat16 may really round,
    so the first use measures the error and leaves the permission alone if it is too large.

    The setting belongs to the whole process; it is restored when the last block that is inside is left. Until then
    `torch.get_float32_matmul_precision` may raise a RuntimeError. Settings of GPUs are not touched.
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
            # A value inherited from the setting above is not one of its own: "none" keeps inheriting.
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
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(1024, 512, generator=generator, dtype=torch.float32), dim=1)
    exact = rows.double() @ rows.double().T
    with _lock:
        _enter()
        try:
            found = rows @ rows.T
        finally:
            _leave()
    return bool((found - exact).abs().max() < _LARGEST_ERROR)

"""Modes of torch that the caller may be in: those that must not change what is learned, and the one that may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch


@contextmanager
def plain_modes(device: torch.device) -> Iterator[None]:
    """Leave inference mode, no_grad and autocast for a while, in this thread.

    Args:
        device: that computes; autocast is left on it and on the CPU.
    """
    with ExitStack() as held:
        held.enter_context(torch.inference_mode(False))
        held.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type}:
            held.enter_context(torch.autocast(kind, enabled=False))
        yield


def float32_on(device: torch.device) -> dict[str, str]:
    """Name what a caller has chosen for float32 products on a GPU, which decides about bits; empty on a CPU."""
    if device.type != "cuda":
        return {}
    matmul: Any = torch.backends.cuda.matmul
    # torch before 2.9 has no fp32_precision; in later ones allow_tf32 may raise.
    coarse = matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    return {"float32 products": "TF32" if coarse else "float32"}

"""Modes of torch that the caller may be in, and that must not change what is learned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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

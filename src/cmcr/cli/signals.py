"""How a command reacts to Ctrl-C and to a scheduler's SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Turn SIGTERM, by which schedulers stop a program, into what Ctrl-C does."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    with _handled(stop, signal.SIGTERM):
        yield


@contextmanager
def stopped_gently(message: str) -> Iterator[None]:
    """Explain what is kept and how to resume, where Ctrl-C or SIGTERM stops the work.

    Args:
        message: what the user reads then, after "stopped; ".
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; {message}") from None


@contextmanager
def _handled(handler: Callable[[int, Any], None], *numbers: signal.Signals) -> Iterator[None]:
    """Handle signals in this block. Only the main thread can; ignored ones stay ignored (as under nohup)."""
    earlier: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                earlier[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in earlier.items():
            signal.signal(number, previous)

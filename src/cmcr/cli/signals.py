"""How a command reacts to Ctrl-C and to a scheduler's SIGTERM."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Turn SIGTERM, by which schedulers stop a program, into what Ctrl-C does; in the main thread, which alone can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


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

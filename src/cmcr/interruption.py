"""Ctrl-C, and what schedulers send, held back until a step is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_HELD_BACK = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM instead of obeying them; they are obeyed when the block is left, a second one at once.

    Only the main thread can do this; in others, and for signals that the program ignores, everything stays as it was.

    Yields:
        the signals that came: empty as long as nobody wants the work to stop.
    """
    came: list[int] = []
    earlier: dict[signal.Signals, Any] = {}

    def put_back() -> None:
        for number, handler in earlier.items():
            signal.signal(number, handler)

    def note(number: int, frame: Any) -> None:
        if came:
            put_back()
            signal.raise_signal(number)
        came.append(number)

    if threading.current_thread() is threading.main_thread():
        for number in _HELD_BACK:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                earlier[number] = signal.signal(number, note)
    try:
        yield came
    finally:
        put_back()
    if came:
        signal.raise_signal(came[0])

"""Ctrl-C, and what schedulers send, held back until a step is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_HELD_BACK = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether somebody wants the work to stop.

    Attributes:
        asked: the signal that came, None while there was none.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None


@contextmanager
def held_back() -> Iterator[Interruption]:
    """Note SIGINT and SIGTERM instead of obeying them; they are obeyed when the block is left, a second one at once.

    Only the main thread can do this; in others, and for signals that the program ignores, everything stays as it was.

    Yields:
        what came.
    """
    interruption = Interruption()
    earlier: dict[signal.Signals, Any] = {}

    def put_back() -> None:
        for number, handler in earlier.items():
            signal.signal(number, handler)

    def note(number: int, frame: Any) -> None:
        if interruption.asked is not None:
            put_back()
            signal.raise_signal(number)
        interruption.asked = signal.Signals(number)

    if threading.current_thread() is threading.main_thread():
        for number in _HELD_BACK:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                earlier[number] = signal.signal(number, note)
    try:
        yield interruption
    finally:
        put_back()
    if interruption.asked is not None:
        signal.raise_signal(interruption.asked)

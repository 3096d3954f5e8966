"""How a long command stops: by Ctrl-C or a scheduler's signal, with a word on how to go on."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stopped_gently(said: str) -> Iterator[None]:
    """Turn SIGTERM, by which schedulers stop a program, into what Ctrl-C does, and say what is safe and how to go on.

    Args:
        said: what the user reads then, after "stopped; ".
    """

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; {said}") from None
    finally:
        signal.signal(signal.SIGTERM, earlier)

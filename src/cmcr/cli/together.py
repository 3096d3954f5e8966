"""What several processes have to say: an error that all share is told by the first one, an error of one alone by that one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

_PATIENCE = timedelta(seconds=5)


def told_by_first(kind: str, message: str) -> bool:
    """Tell whether the first of several processes has said what this one would say.

    It has where it says the same; where it says anything, and this process has only noticed that another one failed; and
    where somebody has stopped them all. Only processes that torchrun has started know: it keeps what they tell each other
    also when they end. If the first one says nothing for five seconds, this process speaks.

    Args:
        kind: of the error, such as "WorkerError".
        message: that would be printed.
    """
    if not _launched() or os.environ["RANK"] == "0":
        return False
    if kind == "interrupted":
        return True
    with _undisturbed():
        from torch import distributed

        try:
            first = _store().get(_key()).decode()
        except distributed.DistError:  # it says nothing
            return False
    return kind == "WorkerError" or first == message


def tell_others(message: str) -> None:
    """Let the other processes know what the first one has said, if this is the first of several."""
    if not _launched() or os.environ["RANK"] != "0":
        return
    with _undisturbed():
        from torch import distributed

        try:
            _store().set(_key(), message)
        except distributed.DistError:  # then they speak for themselves
            return


def _launched() -> bool:
    """Tell whether torchrun has started several processes, and keeps a store for them."""
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return kept and os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ


def _store() -> Any:
    from torch import distributed

    home, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store: Any = distributed.TCPStore  # type: ignore[attr-defined]  # which its stubs forget
    return store(home, port, is_master=False, wait_for_workers=False, timeout=_PATIENCE)


def _key() -> str:
    return f"cmcr/said/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore that torchrun stops the others as soon as one has ended; for these seconds only."""
    earlier = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)

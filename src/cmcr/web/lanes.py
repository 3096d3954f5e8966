"""Threads with a bounded queue in front of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from fastapi import HTTPException

_Result = TypeVar("_Result")


class Lane:
    """Threads for one kind of work, and a bounded queue in front of them.

    Args:
        what: the work, in the plural, for messages.
        threads: that do it.
        waiting: how many calls may wait for one of them.

    Attributes:
        inside: calls that run or wait. One that nobody waits for any more counts until it ends, so that requests that ran
            into their time limit cannot pile up work.
    """

    def __init__(self, what: str, threads: int, waiting: int) -> None:
        self._what, self._room, self.inside = what, threads + waiting, 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"cmcr-{what}")
        self._lock = threading.Lock()

    async def run(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        """Do the work in a thread.

        Raises:
            HTTPException: 503, the queue is full.
        """
        with self._lock:
            if self.inside >= self._room:
                raise HTTPException(503, f"too many {self._what} at once. Try again in a second.", {"Retry-After": "1"})
            self.inside += 1
        future = self._pool.submit(work, *arguments)
        future.add_done_callback(self._left)
        return await asyncio.wrap_future(future)

    def _left(self, future: Future[Any]) -> None:
        with self._lock:
            self.inside -= 1

    def close(self) -> None:
        """Let running calls end, and drop those that wait."""
        self._pool.shutdown(wait=True, cancel_futures=True)

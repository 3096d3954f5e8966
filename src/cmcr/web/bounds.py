"""What bounds the server: its limits, threads with a bounded queue, and a dictionary that forgets."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import HTTPException

_Result = TypeVar("_Result")
_Kept = TypeVar("_Kept")


@dataclass(frozen=True)
class Limits:
    """How much of everything.

    Attributes:
        body_bytes: of an upload.
        json_bytes: of any other request.
        timeout_seconds: until an answer must have begun.
        requests: at once, each of which may hold an upload; further ones are told to come back.
        encodings: that may wait for the one that runs.
        searches: that may wait for those that run.
        sound_seconds: of an uploaded sound, at 48 kHz; of one at 96 kHz it is half of that.
        archive_bytes: of an uploaded .npz, unpacked.
        kept: texts and uploads whose embeddings are kept, the latest used.
    """

    body_bytes: int = 32 * 2**20
    json_bytes: int = 2**20
    timeout_seconds: float = 30.0
    requests: int = 64
    encodings: int = 16
    searches: int = 64
    sound_seconds: float = 600.0
    archive_bytes: int = 256 * 2**20
    kept: int = 10_000


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
        """Do the work in a thread; raises HTTPException 503 if the queue is full."""
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


class Latest(Generic[_Kept]):
    """A dictionary of at most so many entries, the latest used; any thread may use it."""

    def __init__(self, most: int) -> None:
        self._most, self._lock, self._entries = most, threading.Lock(), OrderedDict[Hashable, _Kept]()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> _Kept | None:
        """Give an entry, and take it for used; None where it is not kept."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Hashable, value: _Kept) -> None:
        """Keep an entry, and forget the one that was not used for longest where there are too many."""
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            if len(self._entries) > self._most:
                self._entries.popitem(last=False)

"""Reading that goes on while what was read is computed with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(blocks: Iterable[T]) -> Iterator[T]:
    """Iterate with the next block being read in another thread; one block more is held."""
    reading = iter(blocks)
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, reading, None)
        while (block := coming.result()) is not None:
            coming = thread.submit(next, reading, None)
            yield block

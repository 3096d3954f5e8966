"""A progress bar on standard error, shown only where a person looks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

_WORTH_A_BAR = 20  # steps


def tracked(steps: Iterable[T], what: str, show: bool | None) -> Iterator[T]:
    """Iterate with a bar of rate and time left.

    Args:
        steps: what to iterate over.
        what: what is being done, shown before the bar.
        show: None shows it if standard error is a terminal and there are at least 20 steps.
    """
    many = isinstance(steps, Sized) and len(steps) >= _WORTH_A_BAR
    if show or (show is None and many and sys.stderr.isatty()):
        from rich.console import Console
        from rich.progress import track

        return iter(track(steps, description=what, console=Console(stderr=True)))
    return iter(steps)

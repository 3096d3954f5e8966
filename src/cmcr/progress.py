"""Progress on standard error: bars where a person looks, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from cmcr.terminal import plain

T = TypeVar("T")

Progress = Callable[[str, float], None]
"""Called with a stage of the work and the share of it that is done, in [0, 1]."""

_WORTH_A_BAR = 20  # steps
_LINE_EVERY_S = 30
_SPEED_OVER_S = 600  # steps of long work are minutes apart; rich's own 30 s would never see two of them


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
        from rich.markup import escape
        from rich.progress import track

        return iter(track(steps, description=escape(plain(what)), console=Console(stderr=True)))
    return iter(steps)


@contextmanager
def stages(show: bool | None = None) -> Iterator[Progress]:
    """Show stages of work, with the time that each took and has left.

    Args:
        show: True shows bars in a terminal or a notebook, elsewhere a line when a stage begins and every 30 s; None shows
            bars alone; False nothing.

    Yields:
        what to call with (stage, share done).
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not looked_at(show):
        yield lambda stage, share: None
    elif not (console.is_terminal or console.is_jupyter):
        yield _Lines().show
    else:
        yield from _bars(console)


def looked_at(show: bool | None) -> bool:
    """Find out whether `stages` shows anything."""
    from rich.console import Console

    console = Console(stderr=True)
    return show is not False and (bool(show) or console.is_terminal or console.is_jupyter)


def _bars(console: Any) -> Iterator[Progress]:
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, speed_estimate_period=_SPEED_OVER_S) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, share: float) -> None:
            if stage not in tasks:
                # What was finished earlier says nothing about the speed, so it is there from the start.
                tasks[stage] = bars.add_task(plain(stage), total=1.0, completed=share)  # type: ignore[arg-type]
            bars.update(tasks[stage], completed=share)

        yield show


class _Lines:
    """Stages as lines, for logs."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, float]] = {}  # when, and the share that was finished earlier
        self._said = 0.0

    def show(self, stage: str, share: float) -> None:
        now = time.monotonic()
        if stage not in self._begun:
            self._begun[stage] = now, share
            self._say(f"{stage} ...", now)
            return
        begun, earlier = self._begun[stage]
        if now - self._said >= _LINE_EVERY_S and share > earlier:
            took = now - begun
            left = took * (1 - share) / (share - earlier)
            took_, left_ = (timedelta(seconds=round(seconds)) for seconds in (took, left))
            self._say(f"{stage}: {100 * share:.0f} % in {took_}, {left_} left", now)

    def _say(self, line: str, now: float) -> None:
        self._said = now
        print(plain(line), file=sys.stderr, flush=True)

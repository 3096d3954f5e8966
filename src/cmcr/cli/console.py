"""What the verbs print: progress on standard error, tables on standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_WIDEST = 10_000  # columns of text


@contextmanager
def shown_stages(*, quiet: bool = False) -> Iterator[Callable[[str, float], None]]:
    """Show stages of work: a bar each in a terminal, one line each elsewhere, nothing if `quiet`.

    Yields:
        A function to call with (stage, share done).
    """
    if quiet:
        yield lambda stage, share: None
        return
    if not sys.stderr.isatty():
        seen: set[str] = set()

        def print_once(stage: str, share: float) -> None:
            if stage not in seen:
                seen.add(stage)
                print(f"{stage} ...", file=sys.stderr, flush=True)

        yield print_once
        return
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, share: float) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=1.0)
            bars.update(tasks[stage], completed=share)

        yield show


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], marked: str | None = None) -> None:
    """Print a table, its first column left-aligned; the row that begins with `marked` stands out."""
    table = Table(expand=False)
    for position, column in enumerate(columns):
        least = max(len(column), *(len(row[position]) for row in rows), 0) if position else None
        table.add_column(column, justify="left" if position == 0 else "right", no_wrap=position > 0, min_width=least)
    for row in rows:
        # As text: in names and reasons [b] is no markup.
        table.add_row(*map(Text, row), style="bold cyan" if row[0] == marked else None)
    # Figures are never cut off: a table that is wider than the terminal lets its lines run on.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    needed = Measurement.get(console, console.options.update(max_width=_WIDEST), table).minimum
    console = Console(width=max(console.width, needed))
    console.print(title, style="bold", highlight=False, markup=False)  # a title of the table would wrap at its width
    console.print(table)

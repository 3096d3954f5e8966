"""What the verbs print: progress on standard error, lines and tables on standard output; printable characters alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cmcr.progress import Progress, stages
from cmcr.terminal import plain

if TYPE_CHECKING:
    from cmcr.memories.memory import Memory

_WIDEST = 10_000  # columns of text


@contextmanager
def shown_stages(*, quiet: bool = False) -> Iterator[Progress]:
    """Show stages of work, see `cmcr.progress.stages`; nothing if `quiet`.

    Yields:
        A function to call with (stage, share done).
    """
    with stages(not quiet) as show:
        yield show


def say(*lines: object, aside: bool = False) -> None:
    """Print lines, made plain; on standard error if `aside`."""
    for line in lines:
        print(plain(line), file=sys.stderr if aside else sys.stdout, flush=True)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    marked: str | None = None,
    words: Sequence[str] = (),
) -> None:
    """Print a table, its first column and those of `words` left-aligned; the row that begins with `marked` stands out."""
    # As Text: in names and reasons, [b] is no markup.
    table, heads, cells = Table(expand=False), list(map(_cell, columns)), [list(map(_cell, row)) for row in rows]
    for position, column in enumerate(columns):
        least = max(len(heads[position]), *(len(row[position]) for row in cells), 0) if position else None
        justify: Literal["left", "right"] = "left" if position == 0 or column in words else "right"
        table.add_column(heads[position], justify=justify, no_wrap=position > 0, min_width=least)
    for row, shown in zip(rows, cells, strict=True):
        table.add_row(*shown, style="bold cyan" if row[0] == marked else None)
    # Figures are never cut off: a table that is wider than the terminal lets its lines run on.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    needed = Measurement.get(console, console.options.update(max_width=_WIDEST), table).minimum
    console = Console(width=max(console.width, needed))
    console.print(_cell(title), style="bold")  # a title of the table would wrap at its width
    console.print(table)


def _cell(text: str) -> Text:
    return Text(plain(text))


def percent(figure: Mapping[str, Any], key: str = "value", sign: str = "") -> str:
    """Write a share and its interval, where it has one, in percent, such as "48.2 [45.1, 51.3]"."""
    value, low, high = (
        f"{100 * figure[name]:{sign}.1f}" if figure[name] is not None else "" for name in (key, "low", "high")
    )
    return f"{value} [{low}, {high}]" if low else value


def print_memory(memory: Memory, out: Path) -> None:
    """Print what a memory holds, and where it says what could not be embedded."""
    quarantined = len(memory.quarantine())
    say(f"{out}: {len(memory):,} rows of {memory.width} ({memory.modality} in {memory.space}, {memory.dtype}).")
    if quarantined:
        say(f"{quarantined:,} item(s) are in quarantine: {out}/*.quarantine.jsonl gives the reasons.")

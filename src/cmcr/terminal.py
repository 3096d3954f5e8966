"""What may reach a terminal: printable characters alone, so that no name moves the cursor or passes for a line of ours."""

from __future__ import annotations


def plain(text: object) -> str:
    """Make one line of printable characters: white space becomes blanks, what a terminal would act on becomes U+FFFD."""
    return "".join(
        each if each.isprintable() else " " if each.isspace() else "\N{REPLACEMENT CHARACTER}" for each in str(text)
    )


def plain_lines(text: object) -> str:
    """Keep the lines of a message, each plain; all but the first are indented, whoever has put them there."""
    first, *rest = map(plain, str(text).split("\n"))
    return "\n".join([first, *(line if line.startswith("  ") else f"  {line}" for line in rest)])

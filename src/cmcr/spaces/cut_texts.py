"""Texts that are longer than what an encoder reads: counted during a call, and told once at its end."""

from __future__ import annotations

import warnings
from threading import Lock

_SHOWN = 40  # characters


class CutTexts:
    """Counts the texts of one call that were cut (from several threads); not which, of which there may be millions.

    Args:
        space: the space's name, for the warning.
        tokens: that its encoder reads.
    """

    def __init__(self, space: str, tokens: int) -> None:
        self._space, self._tokens = space, tokens
        self._count = 0
        self._first = ""
        self._counting = Lock()

    def add(self, text: str) -> None:
        """Count a text."""
        with self._counting:
            # Of the order in which threads come nothing may show: the first in the alphabet.
            begins = text[:_SHOWN]  # not the text itself, which may be long, for as long as the call takes
            self._first = min(self._first, begins) if self._count else begins
            self._count += 1

    def say(self) -> None:
        """Warn of what was left out, if anything was. To be called as `_opened_towers` ends."""
        if self._count:
            warnings.warn(
                f"{self._space}: {self._count} text(s) are longer than the {self._tokens} tokens that this encoder reads; the "
                f"rest of each was not embedded. One begins with {self._first!r}.",
                UserWarning,
                stacklevel=5,  # past the end of the call of `encode`, to its caller
            )

"""The ids of rows that are numbered: written down by numpy, since a million strings take as long as their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ZERO = ord("0")


class NumberedIds(Sequence[str]):
    """The ids "0", "1", ..., or a part of them, as a sequence of strings that are made when they are asked for.

    Args:
        start: the first number, at least 0.
        stop: the number after the last one.
        prefix: stands before each number.
    """

    def __init__(self, start: int, stop: int, prefix: str = "") -> None:
        self.prefix = prefix
        self._numbers = range(start, max(start, stop))

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return (f"{self.prefix}{number}" for number in self._numbers)

    def __getitem__(self, place: Any) -> Any:
        if not isinstance(place, slice):
            return f"{self.prefix}{self._numbers[place]}"
        part = self._numbers[place]
        if part.step != 1:
            return [f"{self.prefix}{number}" for number in part]
        return NumberedIds(part.start, part.stop, self.prefix)

    def joined(self, before: bytes = b"", after: bytes = b"") -> bytes:
        """Write all ids down in UTF-8, one after another.

        Args:
            before: what stands before each id.
            after: what stands after each id.
        """
        before += self.prefix.encode("utf-8", "surrogatepass")
        return b"".join(_written(part, digits, before, after) for part, digits in self._by_digits())

    def lengths(self) -> NDArray[np.int64]:
        """Count the characters of each id: `(n,)`."""
        counts = [np.full(len(part), len(self.prefix) + digits) for part, digits in self._by_digits()]
        return np.concatenate([np.empty(0, dtype=np.int64), *counts])

    def _by_digits(self) -> Iterator[tuple[range, int]]:
        """Divide the numbers into those of one digit, of two, and so on."""
        start = self._numbers.start
        while start < self._numbers.stop:
            digits = len(str(start))
            stop = min(10**digits, self._numbers.stop)
            yield range(start, stop), digits
            start = stop


def _written(numbers: range, digits: int, before: bytes, after: bytes) -> bytes:
    """Write down numbers that have equally many digits."""
    lines = np.empty((len(numbers), len(before) + digits + len(after)), dtype=np.uint8)
    lines[:, : len(before)] = np.frombuffer(before, dtype=np.uint8)
    lines[:, len(before) + digits :] = np.frombuffer(after, dtype=np.uint8)
    # Half as wide numbers are divided in half the time.
    rest: NDArray[Any] = np.arange(numbers.start, numbers.stop, dtype=np.uint32 if numbers.stop < 2**32 else np.uint64)
    for column in reversed(range(len(before), len(before) + digits)):
        tenths = rest // 10
        lines[:, column] = rest - tenths * 10 + _ZERO
        rest = tenths
    return lines.tobytes()

"""Texts of numbers: digits or number words, in several phrasings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_PHRASES = ("{}", "the number {}", "number {}", "this is {}", "it says {}", "code {}")


def _below_hundred(value: int) -> str:
    if value < 20:
        return _UNITS[value]
    tens = _TENS[value // 10 - 2]
    return tens if value % 10 == 0 else f"{tens} {_UNITS[value % 10]}"


def _cardinal(value: int, joiner: str) -> str:
    hundreds, rest = divmod(value, 100)
    if hundreds == 0:
        return _below_hundred(rest)
    head = f"{_UNITS[hundreds]} hundred"
    return head if rest == 0 else f"{head}{joiner}{_below_hundred(rest)}"


def _wordings(value: int) -> tuple[str, ...]:
    """All ways to write one number, the plainest first."""
    spelled = [_UNITS[int(digit)] for digit in f"{value:03d}"]
    return (
        f"{value:03d}",
        " ".join(spelled),
        " ".join("oh" if word == "zero" else word for word in spelled),
        _cardinal(value, " and "),
        _cardinal(value, " "),
    )


def write_texts(numbers: NDArray[np.int64], rng: np.random.Generator) -> list[str]:
    """Write each number once, in a random wording and phrase: `(n,)` integers in 0..999 -> n strings."""
    wording = rng.integers(0, 5, size=len(numbers))
    phrase = rng.integers(0, len(_PHRASES), size=len(numbers))
    return [
        _PHRASES[p].format(_wordings(value)[w])
        for value, w, p in zip(numbers.tolist(), wording.tolist(), phrase.tolist(), strict=True)
    ]


def class_texts(number: int) -> list[str]:
    """All phrasings of one number: the prompt ensemble of its class (30 strings, some equal)."""
    return [phrase.format(wording) for wording in _wordings(number) for phrase in _PHRASES]

"""Texts: strings that can be encoded, and files of them. Only UTF-8 is read: a wrong guess would go unnoticed."""

from __future__ import annotations

import re
from typing import Any

from cmcr.data.paths import FilePath, content_of, file_of
from cmcr.errors import SampleError

MOST_CHARACTERS = 100_000
"""How long a text may be: tokenisers read all of it, whatever part of it an encoder takes."""

_UNUSABLE = re.compile("[\0\ud800-\udfff]")


def read_text(item: Any) -> str:
    r"""Check one text and return it as it is: any unicode, no trimming, no normalisation.

    Raises:
        SampleError: not a string (bytes and paths are refused too), empty, white space only, longer than
            `MOST_CHARACTERS`, or holding a lone surrogate (which no encoding can write) or a NUL (which cuts a text short in
            some tokenisers).
    """
    if not isinstance(item, str):
        raise SampleError(f"a text: expected a string, got {type(item).__name__}.")
    if len(item) > MOST_CHARACTERS:
        raise SampleError(f"a text: {len(item):,} characters, the limit is {MOST_CHARACTERS:,}. Cut it.")
    if not item.strip():
        raise SampleError(f"a text: {'white space only' if item else 'empty'}; there is nothing to embed.")
    if unusable := _UNUSABLE.search(item):
        kind = "a NUL" if unusable[0] == "\0" else "a lone surrogate"
        raise SampleError(f"a text: holds {kind} at character {unusable.start()}; remove it.")
    return str(item)


def read_lines(path: FilePath, kind: str = "text file") -> list[str]:
    r"""Read the lines of a UTF-8 file, blank ones included, without their ends (`\n`, `\r\n` or `\r`).

    Args:
        path: the file.
        kind: how messages call it.

    Raises:
        SampleError: no such file, too large, or as `decode_utf8`.
    """
    return lines_of(decode_utf8(content_of(file_of(path, kind), str(path)), str(path)))


def lines_of(text: str) -> list[str]:
    r"""Split a text at `\n`, `\r\n` and `\r` alone; `str.splitlines` would also split at `\u2028` and others."""
    lines = re.split("\r\n|\n|\r", text)
    return lines if lines[-1] else lines[:-1]


def decode_utf8(content: bytes, name: str) -> str:
    """Decode the bytes of a file; a byte order mark of UTF-8 is left out.

    Raises:
        SampleError: not UTF-8, with the first line that is not.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:  # its object is the content without the mark
        line, byte = error.object.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise SampleError(f"{name}: not UTF-8: line {line} holds the byte 0x{byte:02X}. Save it as UTF-8.") from error

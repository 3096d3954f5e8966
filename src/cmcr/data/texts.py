"""Texts: strings that can be encoded, and files of them."""

from __future__ import annotations

import codecs
import os
import re
from typing import Any

from cmcr.data.paths import FilePath, file_of
from cmcr.errors import SampleError

_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_OTHER_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def read_text(item: Any, name: str = "a text") -> str:
    r"""Check one text; it comes back as it is: any unicode, no trimming, no normalisation.

    Args:
        item: a string with something to read in it.
        name: how messages call it.

    Raises:
        SampleError: not a string (bytes and paths are no texts), empty, white space only, or holding a lone surrogate
            (which no encoding can write) or a NUL (which cuts a text short in some tokenisers).
    """
    if not isinstance(item, str):
        raise SampleError(f"{name}: expected a string, got {type(item).__name__}.{_hint(item)}")
    if not item.strip():
        raise SampleError(f"{name}: {'white space only' if item else 'empty'}; there is nothing to embed.")
    unusable = _UNUSABLE.search(item)
    if unusable:
        kind = "a NUL" if unusable[0] == "\0" else f"a lone surrogate (U+{ord(unusable[0]):04X})"
        raise SampleError(f"{name}: holds {kind} at character {unusable.start()}; remove it.")
    return str(item)


def read_lines(path: FilePath, kind: str = "text file") -> list[str]:
    r"""Read the lines of a UTF-8 file, blank ones included, without their ends (`\n`, `\r\n` or `\r`).

    A byte order mark of UTF-8 is left out. No other encoding is guessed, since a wrong guess goes unnoticed.

    Args:
        path: the file.
        kind: how messages call it.

    Raises:
        SampleError: no such file, or not UTF-8 (with the line and the byte where it ends to be).
    """
    content = file_of(path, kind).read_bytes()
    for mark, encoding in _OTHER_MARKS.items():
        if content.startswith(mark):
            raise SampleError(f"{path}: written in {encoding}; only UTF-8 is read. Save it as UTF-8.")
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start + len(content) - len(content.removeprefix(codecs.BOM_UTF8))
        line = content.count(b"\n", 0, at) + 1
        raise SampleError(
            f"{path}: not UTF-8: byte {at} (line {line}) is 0x{content[at]:02X}. Save it as UTF-8."
        ) from error
    lines = re.split("\r\n|\n|\r", text)
    return lines if lines[-1] else lines[:-1]


def read_text_file(path: FilePath) -> list[str]:
    """Read a file with one text a line, each checked by `read_text`.

    Raises:
        SampleError: as `read_lines` and `read_text`, naming the line. A blank line is refused and not left out: the lines
            often stand beside those of another file.
    """
    return [read_text(line, f"{path} line {number}") for number, line in enumerate(read_lines(path), start=1)]


def _hint(item: Any) -> str:
    if isinstance(item, bytes | bytearray):
        return " Decode it first: item.decode('utf-8')."
    if isinstance(item, os.PathLike):
        return " A path is not a text; read_text_file reads the lines of a file."
    return ""

"""Reading what lists are made of: refusals of the system as `ReadError`, UTF-8 and nothing else, names as ids."""

from __future__ import annotations

import codecs
import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from cmcr.errors import CmcrError, ConfigError, ReadError, SampleError

_OTHER_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
_UNDECODED = re.compile("[\udc80-\udcff]")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn a refusal of the system into `ReadError`."""
    try:
        yield
    except CmcrError:  # a ReadError is an OSError too: already said
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ReadError(error.errno or errno.EIO, f"could not read ({reason})", error.filename or str(path)) from error


def damaged(path: Path, kind: str, reason: object) -> ReadError:
    """Build the error for a file that is not whole."""
    return ReadError(errno.EIO, f"the {kind} is damaged or cut short ({reason}); fetch or write it again", str(path))


@contextlib.contextmanager
def open_utf8(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    """Open a UTF-8 file, with or without a byte order mark, to be read line by line.

    Bytes that are not UTF-8 become lone surrogates, which `undecoded` finds: they spoil their own line only.

    Raises:
        ConfigError: the file is written in UTF-16.
        ReadError: the system refuses to read it.
    """
    with reading(path):
        with path.open("rb") as file:
            head = file.read(2)
        if head in _OTHER_MARKS:
            raise ConfigError(f"{path}: written in {_OTHER_MARKS[head]}; only UTF-8 is read. Save it as UTF-8.")
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline) as text:
            yield text


def undecoded(text: str) -> str | None:
    """Say what in a text from `open_utf8` is not UTF-8, or `None`."""
    found = _UNDECODED.search(text)
    return f"not UTF-8: byte 0x{ord(found[0]) - 0xDC00:02X} after {found.start()} characters" if found else None


def decoded(content: bytes, name: str) -> str | SampleError:
    """Decode a file that is one text. The one line end behind it, which editors add, is left out."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return SampleError(f"{name}: not UTF-8: byte {error.start} is 0x{content[error.start]:02X}. Save it as UTF-8.")
    return text.removesuffix("\n").removesuffix("\r")


def as_id(name: str) -> str:
    r"""Make a name fit to be written down: bytes of it that are not UTF-8 become escapes such as `\udce9`."""
    return name.encode(errors="backslashreplace").decode()

"""Lists of items: they can be walked any number of times, and are never held in memory as a whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cmcr.data.texts import decode_utf8
from cmcr.errors import ConfigError, SampleError


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to embed, before its content is read.

    Args:
        id: the same on every machine and day, and unique in the list.
        source: where it came from: a relative path with `/`, then `:` and a row number if it lies in a table. Never absolute.
        mark: the part of its content that enters the hash of the list: all of it where it stands in the list itself, the
            size of a member of an archive, nothing of a file.
        read: gives what a space reads: a path, a string, bytes or `NamedBytes`; a `SampleError` (not raised) where the item
            cannot be read. Valid until the walk moves on: a tar file is read in one direction.
    """

    id: str
    source: str
    mark: bytes
    read: Callable[[], Any]


class ItemList(ABC):
    """Items in a stable order, which can be walked any number of times.

    Attributes:
        description: what it is, for messages: "folder photos (image files)".
        ignored: endings of files that were passed over and how many files, as the latest walk found them.
    """

    description: str
    ignored: Mapping[str, int] = MappingProxyType({})

    def walk(self) -> Generator[Entry, None, None]:
        """Give the entries in order.

        Raises:
            ConfigError: there are none.
            ReadError: the system refuses to read the list, it is gone or damaged.
        """
        empty = True
        for entry in self._entries():
            empty = False
            yield entry
        if empty:
            raise self._nothing()

    @abstractmethod
    def _entries(self) -> Iterator[Entry]:
        """Give the entries in order, and start the count of `ignored` again."""

    @abstractmethod
    def _nothing(self) -> ConfigError:
        """Build the error for a list without items: what was expected, what is there instead, what to do."""


def as_id(name: str) -> str:
    r"""Make a name writable as UTF-8: bytes of it that are not become escapes such as `\udce9`."""
    return name.encode(errors="backslashreplace").decode()


def text_of(content: bytes, name: str) -> str | SampleError:
    """Decode a file that is one text, without the line end that editors add at its end."""
    try:
        return decode_utf8(content, name).removesuffix("\n").removesuffix("\r")
    except SampleError as error:
        return error

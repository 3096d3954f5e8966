"""What a list of items is: it can be walked again and again, and never lies in memory as a whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cmcr.data.items.survey import Survey, survey_of
from cmcr.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to embed.

    Args:
        id: the same on every machine and day, and no other item of the list has it.
        source: where it came from: a relative path with `/`, then `:` and a row where it lies in a list. Never absolute.
        content: what a space reads: a path, a string, bytes or `NamedBytes`; a `SampleError` (not raised) where the item
            cannot be read.
    """

    id: str
    source: str
    content: Any


@dataclass(frozen=True, slots=True)
class Entry:
    """An item before its content is read.

    Args:
        id: as in `Item`.
        source: as in `Item`.
        mark: what tells its content from another cheaply: all of it where it lies in the list itself, the size of a member of
            an archive, nothing of a file that has a name.
        read: gives the content. Valid until the walk goes on: a tar file is read in one direction.
    """

    id: str
    source: str
    mark: bytes
    read: Callable[[], Any]


class ItemList(ABC):
    """Items in a stable order, which can be walked any number of times.

    Walking and `survey` raise `ConfigError` where there are no items, and `ReadError` where the system refuses to read
    them, they are gone or damaged.

    Attributes:
        description: what it is, for messages: "folder photos (image files)".
        ignored: file endings that were passed over and how many files, as the latest walk found them.
    """

    description: str
    ignored: Mapping[str, int]

    def __iter__(self) -> Iterator[Item]:
        for entry in self.walk():
            yield Item(entry.id, entry.source, entry.read())

    def survey(self) -> Survey:
        """Count the items, hash the list and refuse ids that occur twice, in one pass that reads no contents of files.

        Eight bytes an item are held, to find ids that occur twice; where there is one, a second pass names it.

        Raises:
            ConfigError: no items, or an id that occurs twice.
            ReadError: the system refuses to read the list, it is gone or damaged.
        """
        return survey_of(self.walk, self.description)

    def walk(self) -> Generator[Entry, None, None]:
        """Give the entries in order.

        Raises:
            ConfigError: there are none.
            ReadError: as `survey`.
        """
        empty = True
        for entry in self._entries():
            empty = False
            yield entry
        if empty:
            raise self._nothing()

    @abstractmethod
    def _entries(self) -> Iterator[Entry]:
        """Give the entries in order, and set `ignored` anew."""

    @abstractmethod
    def _nothing(self) -> ConfigError:
        """Say that there are no items, what is there instead, and what to do."""

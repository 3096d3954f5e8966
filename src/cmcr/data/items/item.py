"""What a list of items is: it can be walked again and again, and is never held in memory as a whole."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmcr.data.texts import decode_utf8
from cmcr.errors import ConfigError, SampleError


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to embed, before its content is read.

    Args:
        id: the same on every machine and day, and unique in the list.
        source: where it came from: a relative path with `/`, then `:` and a row number if it lies in a table. Never absolute.
        hashed: what the digest of the list covers of its content: all of it where it is part of the list itself, the size of a
            member of an archive, nothing for a file that has a name.
        read: gives what a space reads: a path, a string, bytes or `NamedBytes`; a `SampleError` (not raised) where the item
            cannot be read. Valid until the walk moves on: a tar file is read in one direction.
    """

    id: str
    source: str
    hashed: bytes
    read: Callable[[], Any]


@dataclass(frozen=True)
class Survey:
    """What one pass over a list of items found.

    Args:
        count: how many items there are.
        digest: sha256, in hexadecimal, over the ids and `hashed` of the entries. The same on every machine; dates and absolute
            paths are not in it.
    """

    count: int
    digest: str


class ItemList(ABC):
    """Items in a stable order, which can be walked any number of times.

    Walking and `survey` raise `ConfigError` where there are no items, and `ReadError` where the system refuses to read
    them, they are gone or damaged.

    Attributes:
        description: what it is, for messages: "folder photos (image files)".
        ignored: endings of files that were passed over and how many files, as the latest walk found them.
    """

    description: str
    ignored: Mapping[str, int]

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

    def survey(self) -> Survey:
        """Count the items, hash the list and refuse ids that occur twice, in one pass that reads no contents of files.

        Eight bytes an item are held, to find ids that occur twice; where there is one, a second pass names it.

        Raises:
            ConfigError: no items, or an id that occurs twice.
            ReadError: as `walk`.
        """
        whole = hashlib.sha256()
        hashes = array("Q")
        for entry in self.walk():
            for part in (entry.id.encode(), entry.hashed):
                whole.update(len(part).to_bytes(8, "big"))  # without lengths, ab + c and a + bc would be the same
                whole.update(part)
            hashes.append(_hash_of(entry.id))
        ordered = np.frombuffer(hashes, dtype=np.uint64)
        ordered.sort()  # in place: a copy would double what is held
        repeated = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        if repeated:
            self._refuse_repeated_ids(repeated)
        return Survey(len(hashes), whole.hexdigest())

    def _refuse_repeated_ids(self, hashes: set[int]) -> None:
        """Raise for the first id that occurs twice, among those of some hashes; two ids of one hash are no fault."""
        sources: dict[str, str] = {}
        for entry in self.walk():
            if _hash_of(entry.id) not in hashes:
                continue
            if entry.id in sources:
                raise ConfigError(
                    f"{self.description}: the id {entry.id!r} occurs twice, at {sources[entry.id]} and at {entry.source}. "
                    "Each item needs its own id: choose another id_column, or leave it out to number the rows."
                )
            sources[entry.id] = entry.source

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
    """Decode a file that is one text. The one line end behind it, which editors add, is left out."""
    try:
        return decode_utf8(content, name).removesuffix("\n").removesuffix("\r")
    except SampleError as error:
        return error


def _hash_of(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")

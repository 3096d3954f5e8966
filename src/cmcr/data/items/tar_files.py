"""Members of tar files as items, read from the archive and never unpacked to the disk.

Python's tarfile takes a damaged or missing header for the end of the archive, and does not read the checksum at the end of a
gzip stream. `_Header` and `_members` therefore check that archives are whole.
"""

from __future__ import annotations

import contextlib
import gzip
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from cmcr.data.items.files import ENDINGS_OF, Selection, counted, ending_of
from cmcr.data.items.item import Entry, ItemList, as_id, text_of
from cmcr.data.paths import NamedBytes, damaged, reading
from cmcr.errors import ConfigError

_GZIP_MARK = b"\x1f\x8b"


@dataclass
class TarItems(ItemList):
    """Each member with an ending of the modality is one item, in the order of the archives.

    The id is the archive and the member's name; `#2` is added to the second member of one name. Hidden members, among
    them those that macOS adds (`._a.jpg`), are passed over; links are counted as ignored.

    Args:
        selection: the tar files.
        modality: what the members hold.
        description: for messages.
    """

    selection: Selection
    modality: str
    description: str

    def _entries(self) -> Iterator[Entry]:
        self.ignored = ignored = Counter[str]()
        for relative, path in self.selection:
            seen = Counter[str]()  # of one archive at a time
            with _opened(path) as archive:
                for member in _members(archive):
                    name = "/".join(part for part in PurePosixPath(member.name).parts if part != "/")
                    if any(part.startswith(".") for part in name.split("/")):
                        continue
                    ending = ending_of(name) if member.isreg() else "link"
                    if ending not in ENDINGS_OF[self.modality]:
                        ignored[ending or "no ending"] += 1
                        continue
                    seen[name] += 1
                    source = as_id(f"{relative}/{name}")
                    read = partial(self._read, archive, path, member, source)
                    if seen[name] > 1:
                        source += f"#{seen[name]}"
                    yield Entry(source, source, str(member.size).encode(), read)

    def _read(self, archive: tarfile.TarFile, path: Path, member: tarfile.TarInfo, name: str) -> Any:
        with _damage_named(path):
            content = cast(IO[bytes], archive.extractfile(member)).read()
        if self.modality == "text":
            return text_of(content, name)
        return NamedBytes(name, content) if self.modality == "point_cloud" else content

    def _nothing(self) -> ConfigError:
        return ConfigError(
            f"{self.description}: expected members ending in {', '.join(ENDINGS_OF[self.modality])}; got "
            f"{counted(self.ignored) or 'no members'}. Choose other files or another modality."
        )


class _Header(tarfile.TarInfo):
    """A header that must be whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):  # the mark of the end
                raise
            raise tarfile.ReadError(f"no header where one should be: {error}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    with reading(path), _damage_named(path), path.open("rb") as file:
        packed = file.read(2) == _GZIP_MARK
        file.seek(0)
        with (
            gzip.GzipFile(fileobj=file) if packed else contextlib.nullcontext(file) as content,
            # The kind is named, since tarfile's guess hides the reason of a failure.
            tarfile.open(
                fileobj=cast(IO[bytes], content), mode="r:", tarinfo=_Header, encoding="utf-8", errors="surrogateescape"
            ) as archive,
        ):
            yield archive


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        cast(Any, archive).members.clear()  # tarfile remembers all of them
        if not member.isdir():
            yield member
    # Read to the last byte: there gzip compares its checksum, and a second archive after the first is found.
    while rest := cast(Any, archive).fileobj.read(1 << 16):
        if any(rest):
            raise tarfile.ReadError("more follows the mark of its end; archives are joined with tar --concatenate")


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise damaged(path, "tar file", error) from error

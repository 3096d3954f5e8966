"""Members of tar files as items, read from the archive and never unpacked to the disk."""

from __future__ import annotations

import contextlib
import gzip
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from cmcr.data.items.files import ENDINGS_OF, Entry, SelectedItems, as_id, ending_of, text_of
from cmcr.data.paths import NamedBytes, damaged
from cmcr.files import reading

_GZIP_MARK = b"\x1f\x8b"


class TarItems(SelectedItems):
    """Each member with an ending of the modality is one item, in the order of the archives.

    The id is the archive and the member's name. Hidden members, among them those that macOS adds (`._a.jpg`), are passed
    over; links are counted as ignored.
    """

    def _entries(self) -> Iterator[Entry]:
        self.ignored = ignored = Counter[str]()
        for relative, path in self.selection:
            with _opened(path) as archive:
                for member in _members(archive):
                    name = "/".join(part for part in PurePosixPath(member.name).parts if part != "/")
                    if any(part.startswith(".") for part in name.split("/")):
                        continue
                    ending = ending_of(name) if member.isreg() else "link"
                    if ending not in ENDINGS_OF[self.modality]:
                        ignored[ending or "no ending"] += 1
                        continue
                    source = as_id(f"{relative}/{name}")
                    read = partial(self._read, archive, path, member, source)
                    yield Entry(source, source, str(member.size).encode(), read)

    def _read(self, archive: tarfile.TarFile, path: Path, member: tarfile.TarInfo, name: str) -> Any:
        with _damage_named(path):
            content = cast(IO[bytes], archive.extractfile(member)).read()
        if self.modality == "text":
            return text_of(content, name)
        return NamedBytes(name, content) if self.modality == "point_cloud" else content


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    with reading(path), _damage_named(path):
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP_MARK
        # The kind is named, since tarfile's guess hides the reason of a failure.
        with tarfile.open(path, "r:gz" if packed else "r:", encoding="utf-8", errors="surrogateescape") as archive:
            yield archive


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        cast(Any, archive).members.clear()  # tarfile remembers all of them
        if not member.isdir():
            yield member
    # tarfile takes a damaged or missing header for the end, and does not read gzip's checksum: look that nothing but zeros
    # follows, to the last byte.
    file = cast(Any, archive).fileobj
    file.seek(cast(Any, archive).offset)
    rest = file.read(tarfile.BLOCKSIZE)
    if len(rest) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the mark of its end is missing")
    while rest:
        if any(rest):
            raise tarfile.ReadError("no header where one should be; archives are joined with tar --concatenate")
        rest = file.read(1 << 16)


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise damaged(path, "tar file", error) from error

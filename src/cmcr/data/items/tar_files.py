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
from cmcr.data.paths import NamedBytes, damaged, opened
from cmcr.errors import SampleError
from cmcr.files import reading

MEMBER_BYTES = 256 * 2**20
"""The most of a member, which is read into RAM; a larger one is an item that cannot be read."""

_HEADER_BYTES = 256 * 2**10  # of long names and pax headers, which may follow each other
_GLOBALS = 1000  # names in pax headers that are for all members
_UNPACKED, _TIMES = 2**30, 200  # what packs better than 200 times and unpacks to more than this is a bomb
_PADDING = 64 * 2**20  # zeros after the end
_GZIP_MARK = b"\x1f\x8b"
_LONG_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


class _Header(tarfile.TarInfo):
    """A header, refused where tarfile would read back and forth or without end."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.size < 0 or (self.type in _LONG_HEADERS and self.size > _HEADER_BYTES):
            raise tarfile.ReadError(f"the header of {self.name!r:.80} claims {self.size} bytes")
        return cast(Any, super())._proc_member(archive)

    def _refused(self, *_: object) -> None:
        raise tarfile.ReadError(f"{self.name!r:.80} is sparse; write it again without tar --sparse")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refused


class TarItems(SelectedItems):
    """Each member with an ending of the modality is one item, in the order of the archives.

    The id is the archive and the member's name. Hidden members, among them those that macOS adds (`._a.jpg`), are passed
    over; links are counted as ignored.
    """

    def _entries(self) -> Iterator[Entry]:
        self.ignored = ignored = Counter[str]()
        for relative, path in self.selection:
            with _opened(path) as archive:
                for member in _members(archive, path.stat().st_size):
                    name = "/".join(part for part in PurePosixPath(member.name).parts if part != "/")
                    if any(part.startswith(".") for part in name.split("/")):
                        continue
                    ending = ending_of(name) if member.isreg() else "link or device"
                    if ending not in ENDINGS_OF[self.modality]:
                        ignored[ending or "no ending"] += 1
                        continue
                    source = as_id(f"{relative}/{name}")
                    read = partial(self._read, archive, path, member, source)
                    yield Entry(source, source, str(member.size).encode(), read)

    def _read(self, archive: tarfile.TarFile, path: Path, member: tarfile.TarInfo, name: str) -> Any:
        if member.size > MEMBER_BYTES:
            return SampleError(f"{name}: {member.size} bytes, a member may have {MEMBER_BYTES}. Unpack the archive.")
        with _damage_named(path):
            content = cast(IO[bytes], archive.extractfile(member)).read()
        if self.modality == "text":
            return text_of(content, name)
        return NamedBytes(name, content) if self.modality == "point_cloud" else content


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    with reading(path), _damage_named(path):
        with opened(path) as file:
            packed = file.read(2) == _GZIP_MARK
        # The kind is named, since tarfile's guess hides the reason of a failure.
        with tarfile.open(
            path, "r:gz" if packed else "r:", encoding="utf-8", errors="surrogateescape", tarinfo=_Header
        ) as archive:
            yield archive


def _members(archive: tarfile.TarFile, packed_bytes: int) -> Iterator[tarfile.TarInfo]:
    at, most = cast(Any, archive), max(_UNPACKED, _TIMES * packed_bytes)
    before = at.offset - 1
    while (member := archive.next()) is not None:
        at.members.clear()  # tarfile remembers all of them
        if not before < at.offset <= most or len(archive.pax_headers) > _GLOBALS:
            raise tarfile.ReadError(
                f"{member.name!r:.80} leads to byte {at.offset} of {most}, or has headers without end"
            )
        before = at.offset
        if not member.isdir():
            yield member
    # tarfile takes a damaged or missing header for the end, and does not read gzip's checksum: look that nothing but zeros
    # follows, to the last byte.
    file = at.fileobj
    file.seek(at.offset)
    rest = file.read(tarfile.BLOCKSIZE)
    if len(rest) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the mark of its end is missing")
    while rest:
        if any(rest) or file.tell() > at.offset + _PADDING:
            raise tarfile.ReadError("no header where one should be; archives are joined with tar --concatenate")
        rest = file.read(1 << 16)


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError, LookupError, RecursionError) as error:
        raise damaged(path, "tar file", error) from error

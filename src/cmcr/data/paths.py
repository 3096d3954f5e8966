"""Files of items: from what the user wrote to a file that is there, and errors for those that cannot be read."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cmcr.errors import ReadError, SampleError

FilePath = str | os.PathLike[str]

MOST_BYTES = 1 << 28
"""How large a file may be that is read whole."""


@dataclass(frozen=True)
class NamedBytes:
    """The bytes of a file that lies inside another, such as a tar file; the ending of its name there says the format."""

    name: str
    content: bytes

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    def __len__(self) -> int:
        return len(self.content)

    def read_bytes(self) -> bytes:
        """Give the bytes, as a path does."""
        return self.content


def file_of(source: FilePath, kind: str) -> Path:
    """Find the file that a path names.

    Args:
        source: a path on this machine.
        kind: what it should be, for the message: "picture", "sound", "point cloud".

    Raises:
        SampleError: nothing there, a folder or a device, a web address, or a path that the system refuses.
    """
    if isinstance(source, str) and "://" in source:
        raise SampleError(f"{source}: cmcr downloads nothing; fetch the {kind} first and give its path.")
    path = Path(source)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
        readable = is_file and os.access(path, os.R_OK)
    except (OSError, ValueError) as error:  # too long, or a NUL inside
        raise SampleError(f"{source!r}: not a path of a {kind} ({error}).") from error
    if is_folder:
        raise SampleError(f"{source}: a folder, not a {kind}. Give its files one by one.")
    if not is_file:
        there = os.path.lexists(path)
        raise SampleError(f"{source}: {'a pipe, device or dead link, not a' if there else 'no such'} {kind}.")
    if not readable:
        raise SampleError(f"{source}: the {kind} may not be read (permission denied).")
    return path


def opened(path: Path) -> BinaryIO:
    """Open a file to read; raises OSError for a pipe or device too, which may block or never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "a pipe or device, not a file", str(path))
    return path.open("rb")


def content_of(file: Path | NamedBytes, name: str) -> bytes:
    """Read a file whole, as `file_of` finds it; `name` is how messages call it.

    Raises:
        SampleError: larger than `MOST_BYTES`.
        OSError: the system refuses.
    """
    size = len(file.content) if isinstance(file, NamedBytes) else file.stat().st_size
    if size > MOST_BYTES:
        raise SampleError(f"{name}: {size:,} bytes, the limit is {MOST_BYTES:,}.")
    return file.read_bytes()


def damaged(path: Path, kind: str, reason: object) -> ReadError:
    """Build the error for a file that is not whole."""
    return ReadError(errno.EIO, f"the {kind} is damaged or cut short ({reason}); fetch or write it again", str(path))

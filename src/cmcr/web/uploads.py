"""Uploaded files, checked by what they declare before anything is unpacked or decoded; pictures are where they are read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
from pathlib import PurePosixPath

from cmcr.data.audio import sound_seconds
from cmcr.data.paths import NamedBytes
from cmcr.errors import ConfigError, SampleError
from cmcr.web.bounds import Limits

_SAMPLE_RATE_HZ = 48_000


def hash_of(modality: str, content: bytes, name: str = "") -> str:
    """Hash a text or an upload, with the ending of a point cloud, which says its format: 64 hexadecimal digits."""
    suffix = PurePosixPath(name).suffix.lower() if modality == "point_cloud" else ""
    return hashlib.sha256(f"{modality}\n{suffix}\n".encode() + content).hexdigest()


def checked(modality: str, name: str, content: bytes, limits: Limits) -> bytes | NamedBytes:
    """Refuse an upload that would be too large once it is decoded; give what encoders read.

    Raises:
        ConfigError: a text.
        SampleError: empty, no sound, or too large.
    """
    if modality == "text":
        raise ConfigError('texts are not uploaded: give {"modality": "text", "text": ...} as a part of the query.')
    if not content:
        raise SampleError("the upload is empty.")
    if modality == "audio":
        most = limits.sound_seconds
        sound_seconds(content, most=most, most_samples=int(most * _SAMPLE_RATE_HZ))
    if modality == "point_cloud":
        _check_archive(content, limits.archive_bytes)
        return NamedBytes(name, content)
    return content


def _check_archive(content: bytes, most: int) -> None:
    """Refuse an archive (.npz) that says it is larger unpacked; reading stops at the sizes it says."""
    size = 0
    with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(member.file_size for member in archive.infolist())  # of a damaged one its reader says what is wrong
    if size > most:
        raise SampleError(f"the archive holds {size:,} bytes once unpacked, the limit is {most:,}.")

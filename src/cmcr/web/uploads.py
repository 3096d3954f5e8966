"""Uploaded files, checked by what they declare before anything is unpacked or decoded."""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
from pathlib import PurePosixPath

from PIL import Image

from cmcr.data.audio import sound_seconds
from cmcr.data.paths import NamedBytes
from cmcr.errors import ConfigError, SampleError
from cmcr.web.bounds import Limits

# Not all that Pillow opens: PostScript, for one, it hands to another program.
_PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "MPO", "JPEG2000")
_SAMPLE_RATE_HZ = 48_000


def hash_of(modality: str, content: bytes, name: str = "") -> str:
    """Hash a text or an upload, with the ending of a point cloud, which says its format: 64 hexadecimal digits."""
    suffix = PurePosixPath(name).suffix.lower() if modality == "point_cloud" else ""
    return hashlib.sha256(f"{modality}\n{suffix}\n".encode() + content).hexdigest()


def checked(modality: str, name: str, content: bytes, limits: Limits) -> bytes | NamedBytes:
    """Refuse an upload that would be too large once it is decoded; give what encoders read.

    Raises:
        ConfigError: a text.
        SampleError: empty, of another type, or too large.
    """
    if modality == "text":
        raise ConfigError('texts are not uploaded: give {"modality": "text", "text": ...} as a part of the query.')
    if not content:
        raise SampleError("the upload is empty.")
    if modality == "image":
        _check_picture(content, limits.picture_pixels)
    elif modality == "audio":
        most = limits.sound_seconds
        sound_seconds(content, most=most, most_samples=int(most * _SAMPLE_RATE_HZ))
    else:
        _check_archive(content, limits.archive_bytes)
        return NamedBytes(PurePosixPath(name.replace("\\", "/")).name, content)
    return content


def _check_picture(content: bytes, most: int) -> None:
    try:
        with Image.open(io.BytesIO(content), formats=_PICTURES) as opened:  # reads no pixels
            width, height = opened.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SampleError(f"the picture is too large ({error}).") from error
    except Exception as error:  # Pillow's plugins raise whatever a damaged file leads them into
        raise SampleError(
            "not a picture, or a damaged one. Expected a PNG, JPEG, GIF, WebP, BMP or TIFF file."
        ) from error
    if width * height > most:
        raise SampleError(f"the picture is too large: {width} x {height} pixels, the limit is {most:,} in all.")


def _check_archive(content: bytes, most: int) -> None:
    """Refuse an archive (.npz) that says it is larger unpacked; reading stops at the sizes it says."""
    size = 0
    with (
        contextlib.suppress(Exception),
        zipfile.ZipFile(io.BytesIO(content)) as archive,
    ):  # else its reader says what is wrong
        size = sum(member.file_size for member in archive.infolist())
    if size > most:
        raise SampleError(f"the archive holds {size:,} bytes once unpacked, the limit is {most:,}.")

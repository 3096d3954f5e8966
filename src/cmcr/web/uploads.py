"""Uploaded files: checked before they are decoded, embedded at once, kept as long as there is room."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import PurePosixPath

from PIL import Image

from cmcr.data.audio import sound_seconds
from cmcr.data.paths import NamedBytes
from cmcr.data.point_clouds import read_point_cloud
from cmcr.errors import ConfigError, SampleError, unknown_name
from cmcr.web.limits import Limits

# Not all that Pillow opens: PostScript, for one, it hands to another program.
_PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "MPO", "JPEG2000")
_UPLOADED = ("image", "audio", "point_cloud")
_NAME_LENGTH = 100
_SAMPLE_RATE_HZ = 48_000


@dataclass(frozen=True)
class Uploaded:
    """A file that was uploaded, as the content of a part of a query; equal where its bytes and format are.

    Attributes:
        modality: `image`, `audio` or `point_cloud`.
        name: its last part alone, whose ending says the format of a point cloud.
        content: its bytes.
        hash: of modality, ending and content: 64 hexadecimal digits.
    """

    modality: str
    name: str
    content: bytes
    hash: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Uploaded) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    @property
    def source(self) -> bytes | NamedBytes:
        """Give what encoders and readers take."""
        return NamedBytes(self.name, self.content) if self.modality == "point_cloud" else self.content


def uploaded(modality: str, name: str, content: bytes, limits: Limits) -> Uploaded:
    """Check an upload by what it declares, before anything is unpacked or decoded.

    Args:
        modality: what it should be.
        name: as the client calls it; folders in it are dropped.
        content: its bytes.
        limits: see `Limits`.

    Raises:
        ConfigError: a modality of which there are no files.
        SampleError: empty, of another type, or too large once it is decoded.
    """
    if modality == "text":
        raise ConfigError('texts are not uploaded: give {"modality": "text", "text": ...} as a part of the query.')
    if modality not in _UPLOADED:
        raise unknown_name("modality", modality, _UPLOADED)
    name = PurePosixPath(name.replace("\\", "/")).name[-_NAME_LENGTH:]
    if not content:
        raise SampleError("the upload is empty.")
    if modality == "image":
        _check_picture(content, limits)
    elif modality == "audio":
        _check_sound(content, limits)
    else:
        _check_archive(content, limits)
        read_point_cloud(NamedBytes(name, content))  # the message on a file without an ending names the endings
    suffix = PurePosixPath(name).suffix.lower() if modality == "point_cloud" else ""
    hashed = hashlib.sha256(f"{modality}\n{suffix}\n".encode() + content).hexdigest()
    return Uploaded(modality, name, content, hashed)


def _check_picture(content: bytes, limits: Limits) -> None:
    try:
        with Image.open(io.BytesIO(content), formats=_PICTURES) as opened:  # reads no pixels
            width, height = opened.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SampleError(f"the picture is too large ({error}).") from error
    except Exception as error:  # Pillow's plugins raise whatever a damaged file leads them into
        raise SampleError(
            "not a picture, or a damaged one. Expected a PNG, JPEG, GIF, WebP, BMP or TIFF file."
        ) from error
    if width * height > limits.picture_pixels:
        raise SampleError(
            f"the picture is too large: {width} x {height} pixels, the limit is {limits.picture_pixels:,} in all."
        )


def _check_sound(content: bytes, limits: Limits) -> None:
    sound_seconds(content, most=limits.sound_seconds, most_samples=int(limits.sound_seconds * _SAMPLE_RATE_HZ))


def _check_archive(content: bytes, limits: Limits) -> None:
    """Refuse an archive (.npz) that says it is larger unpacked; reading stops at the sizes it says."""
    if not content.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except Exception as error:  # zipfile raises several kinds for damaged directories
        raise SampleError(f"the archive is damaged ({error}).") from error
    if size > limits.archive_bytes:
        raise SampleError(f"the archive holds {size:,} bytes once unpacked, the limit is {limits.archive_bytes:,}.")

"""Files of the index for a browser: as they are, as thumbnails, as points."""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path

import numpy as np
from starlette.responses import FileResponse

from cmcr.data.images import read_image, to_rgb
from cmcr.data.point_clouds import read_point_cloud
from cmcr.errors import SampleError
from cmcr.search.items import Item
from cmcr.web.kept import Kept

MOST_POINTS = 4096
_THUMBNAIL_PIXELS = 320
_SHOWN = {  # what a browser may show; never svg or html, which can hold scripts
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "avif": "image/avif",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "oga": "audio/ogg",
    "opus": "audio/ogg",
    "aif": "audio/aiff",
    "aiff": "audio/aiff",
    "m4a": "audio/mp4",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
}
_Stamp = tuple[str, int, int]

Shown = Kept[bytes]
"""Thumbnails and points, by the file's path, time and size."""


def media_type_of(path: Path) -> str:
    """Choose the content type by the ending, from those that cannot run a script; anything else is to be downloaded."""
    return _SHOWN.get(path.suffix[1:].lower(), "application/octet-stream")


def file_response(item: Item, headers: dict[str, str]) -> FileResponse:
    """Answer with the file of an item, whole or the range that is asked for.

    Raises:
        SampleError: it has none, or it is not there any more.
    """
    path, status = _file_of(item)
    name = re.sub(r"[^\w.+-]", "_", path.name, flags=re.ASCII)[-100:] or "file"
    kind = media_type_of(path)
    shown = "attachment" if kind == "application/octet-stream" else "inline"
    return FileResponse(
        path, headers=headers, media_type=kind, filename=name, stat_result=status, content_disposition_type=shown
    )


def thumbnail(item: Item, kept: Shown) -> bytes:
    """Make a JPEG of at most 320 pixels a side of an item's picture.

    Raises:
        SampleError: no picture, not there any more, or one that cannot be decoded.
    """
    path, stamp = _stamped(item, "image")
    if (found := kept.get(stamp)) is not None:
        return found
    picture = to_rgb(read_image(path))
    picture.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    kept.put(stamp, file.getvalue(), file.tell())
    return file.getvalue()


def points(item: Item, kept: Shown) -> bytes:
    """Give x, y, z of at most 4,096 points of an item's cloud, evenly chosen: float32, little-endian, point after point.

    Raises:
        SampleError: no point cloud, not there any more, or one that cannot be read.
    """
    path, stamp = _stamped(item, "point_cloud")
    if (found := kept.get(stamp)) is not None:
        return found
    cloud = read_point_cloud(path)
    chosen = np.linspace(0, len(cloud) - 1, min(len(cloud), MOST_POINTS)).astype(np.int64)
    content = cloud[chosen].astype("<f4").tobytes()
    kept.put(stamp, content, len(content))
    return content


def _stamped(item: Item, modality: str) -> tuple[Path, _Stamp]:
    if item.modality != modality:
        raise SampleError(f"item {item.number} is of the modality {item.modality!r}, expected {modality!r}.")
    path, status = _file_of(item)
    return path, (str(path), status.st_mtime_ns, status.st_size)


def _file_of(item: Item) -> tuple[Path, os.stat_result]:
    if item.path is None:
        raise SampleError(f"item {item.number} has no file of its own.")
    try:
        status = item.path.stat()
    except OSError as error:
        raise _gone(item) from error
    if not stat.S_ISREG(status.st_mode) or not os.access(item.path, os.R_OK):
        raise _gone(item)
    return item.path, status


def _gone(item: Item) -> SampleError:
    return SampleError(
        f"the file of item {item.number} is not there any more, or may not be read. Run cmcr index again."
    )

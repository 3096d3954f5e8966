"""Files of the index for a browser: as they are, as thumbnails, as points."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from starlette.responses import FileResponse

from cmcr.data.images import read_image, to_rgb
from cmcr.data.point_clouds import read_point_cloud
from cmcr.errors import SampleError
from cmcr.search.items import Item

_POINTS = 4096
_PIXELS = 320
_SHOWN = {  # what a browser may show; never svg or html, which can hold scripts
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
    ".bmp": "image/bmp", ".avif": "image/avif", ".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg", ".oga": "audio/ogg", ".opus": "audio/ogg", ".aif": "audio/aiff", ".aiff": "audio/aiff",
    ".m4a": "audio/mp4", ".mp4": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm",
}  # fmt: skip


def file_response(item: Item, headers: dict[str, str]) -> FileResponse:
    """Answer with the file of an item, whole or the range asked for; SampleError where there is none (any more)."""
    path = _file_of(item)
    kind = _SHOWN.get(path.suffix.lower())
    shown = "inline" if kind else "attachment"
    kind = kind or "application/octet-stream"
    return FileResponse(path, headers=headers, media_type=kind, filename=path.name, content_disposition_type=shown)


def thumbnail(item: Item) -> bytes:
    """Make a JPEG of at most 320 pixels a side of an item's picture.

    Raises:
        SampleError: no picture, not there any more, or one that cannot be decoded.
    """
    picture = to_rgb(read_image(_file_of(item, "image")))
    picture.thumbnail((_PIXELS, _PIXELS))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()


def points(item: Item) -> bytes:
    """Give x, y, z of at most 4,096 points of an item's cloud, evenly chosen: float32, little-endian, point after point.

    Raises:
        SampleError: no point cloud, not there any more, or one that cannot be read.
    """
    cloud = read_point_cloud(_file_of(item, "point_cloud"))
    chosen = np.linspace(0, len(cloud) - 1, min(len(cloud), _POINTS)).astype(np.int64)
    return cloud[chosen].astype("<f4").tobytes()


def _file_of(item: Item, modality: str | None = None) -> Path:
    if item.path is None or modality not in (None, item.modality):
        raise SampleError(f"item {item.number}, of the modality {item.modality!r}, has no such file.")
    if not item.path.is_file() or not os.access(item.path, os.R_OK):
        raise SampleError(
            f"the file of item {item.number} is not there any more, or may not be read. Run cmcr index again."
        )
    return item.path

"""Textures of meshes: pictures within a file or beside it, bounded before any of them is decoded."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from cmcr.data.images import open_picture
from cmcr.data.paths import MOST_BYTES, NamedBytes, content_of
from cmcr.errors import SampleError

MOST_TEXTURES = 4
"""How many pictures of the most pixels that one may have (`PIL.Image.MAX_IMAGE_PIXELS`) the textures of a mesh may fill."""


class Textures:
    """The textures of one mesh, and what it names of other files, as trimesh asks for it: in its folder or the one above.

    Trimesh reads on without what it does not get, for whatever reason, so that is kept in `refused`.
    """

    def __init__(self, file: Path | NamedBytes, name: str) -> None:
        self._folder = file.parent.resolve() if isinstance(file, Path) else None
        self._name, self._pixels = name, 0
        self._contents: dict[Path, bytes] = {}
        self.refused: SampleError | None = None

    def add(self, content: bytes) -> bool:
        """Count a texture, of which the header alone is decoded; False where it is no picture of the formats that are read.

        Raises:
            SampleError: too large, or too many together.
        """
        try:
            with open_picture(io.BytesIO(content), f"a texture of {self._name}") as picture:
                self._pixels += picture.width * picture.height
        except SampleError:
            raise
        except Exception:  # Pillow's plugins raise whatever a damaged file leads them into
            return False
        limit = MOST_TEXTURES * (Image.MAX_IMAGE_PIXELS or self._pixels)
        if self._pixels > limit:
            raise SampleError(
                f"{self._name}: its textures have {self._pixels:,} pixels or more, the limit is {limit:,}."
            )
        return True

    def get(self, key: str) -> bytes:
        """Give the content of a file; raises FileNotFoundError where it is not there, elsewhere, or no picture."""
        if self.refused:
            raise self.refused
        path = None if self._folder is None else (self._folder / key.strip().replace("\\", "/")).resolve()
        if self._folder is None or path is None or not path.is_relative_to(self._folder.parent) or not path.is_file():
            raise FileNotFoundError(key)
        try:
            if path not in self._contents:
                self._contents[path] = content_of(path, str(path))
                if sum(map(len, self._contents.values())) > MOST_BYTES:
                    raise SampleError(f"{self._name}: more than {MOST_BYTES:,} bytes of materials and textures.")
            if path.suffix.lower() != ".mtl" and not self.add(self._contents[path]):
                raise FileNotFoundError(key)
        except SampleError as error:
            self.refused = error
            raise
        return self._contents[path]

    __getitem__ = get

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


class Texels:
    """Counts the pixels of the textures of one mesh.

    Args:
        name: how messages call the mesh.
    """

    def __init__(self, name: str) -> None:
        self._name, self._count = name, 0

    def add(self, content: bytes) -> bool:
        """Count a texture; its header alone is decoded.

        Returns:
            whether it is a picture of the formats that are read.

        Raises:
            SampleError: too large, or too many together.
        """
        try:
            with open_picture(io.BytesIO(content), f"a texture of {self._name}") as picture:
                self._count += picture.width * picture.height
        except SampleError:
            raise
        except Exception:  # Pillow's plugins raise whatever a damaged file leads them into
            return False
        limit = MOST_TEXTURES * (Image.MAX_IMAGE_PIXELS or self._count)
        if self._count > limit:
            raise SampleError(
                f"{self._name}: its textures have {self._count:,} pixels or more, the limit is {limit:,}."
            )
        return True


class Beside:
    """What a mesh names of other files, as trimesh asks for it: materials and textures, in its folder or the one above.

    Trimesh reads on without what it does not get, for whatever reason, so that is kept.

    Args:
        file: the mesh.
        name: how messages call it.

    Attributes:
        refused: what was refused since it is too large.
    """

    def __init__(self, file: Path | NamedBytes, name: str) -> None:
        self._folder = file.parent.resolve() if isinstance(file, Path) else None
        self._name, self._texels = name, Texels(name)
        self._contents: dict[Path, bytes] = {}
        self.refused: SampleError | None = None

    def get(self, key: str) -> bytes:
        """Give the content of a file.

        Raises:
            FileNotFoundError: not there, elsewhere, or no picture.
            SampleError: too large.
        """
        if self._folder is None:
            raise FileNotFoundError(key)
        path = (self._folder / key.strip().replace("\\", "/")).resolve()
        if not path.is_relative_to(self._folder.parent) or not path.is_file():
            raise FileNotFoundError(key)
        try:
            if path not in self._contents:
                self._contents[path] = content_of(path, str(path))
            if sum(map(len, self._contents.values())) > MOST_BYTES:
                raise SampleError(f"{self._name}: more than {MOST_BYTES:,} bytes of materials and textures.")
            if path.suffix.lower() != ".mtl" and not self._texels.add(self._contents[path]):
                raise FileNotFoundError(key)
        except SampleError as error:
            self.refused = error
            raise
        return self._contents[path]

    __getitem__ = get

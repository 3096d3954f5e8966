"""Embeddings of places in pictures: many a picture, so they lie in a temporary file and are read as they are needed.

5,000 pictures of 196 patches, 512 wide, are 2 GB in float32. Here they are float16 (a cosine moves by about 1e-4) in a
file that has no name and is gone with the process; only the places that are being compared are in memory.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcr.data.images import read_image, to_rgb
from cmcr.errors import SampleError
from cmcr.evaluation.tasks.embedding import Embedded
from cmcr.evaluation.tasks.proposals import Boxes, crop
from cmcr.spaces.protocol import Space
from cmcr.spaces.tower import encode_batches_of

_CROPS_AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class Places:
    """Embedded places of pictures.

    Attributes:
        space: the space's name.
        rows: `(P, D)` float16 unit rows, those of the first picture first.
        starts: `(n + 1,)` where each picture's rows begin, and where the last one's end.
        boxes: `(P, 4)` which places they are.
    """

    space: str
    rows: NDArray[np.float16]
    starts: NDArray[np.int64]
    boxes: Boxes

    def count(self, picture: int) -> int:
        """Count the places of a picture."""
        return int(self.starts[picture + 1] - self.starts[picture])

    def boxes_of(self, picture: int) -> Boxes:
        """Give the boxes `(k, 4)` of a picture."""
        return self.boxes[self.starts[picture] : self.starts[picture + 1]]

    def embedded(self, pictures: Iterable[int]) -> Embedded:
        """Read the places of some pictures, one picture's after the other's."""
        parts = [self.rows[self.starts[one] : self.starts[one + 1]] for one in pictures]
        rows = np.concatenate(parts).astype(np.float32)
        return Embedded(self.space, "image", rows, np.arange(len(rows)), {})


class PlacesWriter:
    """Gathers embedded places in a temporary file; to be used with `with`, which closes it.

    Args:
        space: the space's name.
        pictures: how many there are.
    """

    def __init__(self, space: str, pictures: int) -> None:
        self._space = space
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._width = 0
        self._counts = np.zeros(pictures, dtype=np.int64)
        self._boxes: list[Boxes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, picture: int, rows: NDArray[np.float32], boxes: Boxes) -> None:
        """Append places of a picture, rows `(k, D)` and boxes `(k, 4)`; pictures come in rising order."""
        self._file.write(np.ascontiguousarray(rows, dtype=np.float16).tobytes())
        self._width = rows.shape[1]
        self._counts[picture] += len(rows)
        self._boxes.append(boxes)

    def places(self) -> Places:
        """Give what was gathered, read from the file as it is needed, after this writer is closed too."""
        self._file.flush()
        shape = int(self._counts.sum()), self._width
        rows = np.zeros(shape, dtype=np.float16)
        if shape[0]:
            rows = np.memmap(self._file, dtype=np.float16, mode="r", shape=shape)
        starts = np.concatenate([[0], np.cumsum(self._counts)])
        return Places(self._space, rows, starts, np.concatenate([np.empty((0, 4)), *self._boxes]))


def picture_of(item: Any) -> Image.Image:
    """Read an upright RGB picture.

    Raises:
        SampleError: it cannot be read.
    """
    if isinstance(item, SampleError):
        raise item
    return to_rgb(read_image(item() if callable(item) else item))


def embed_boxes(
    space: Space,
    images: Sequence[Any],
    boxes_of: Callable[[Image.Image], Boxes],
    progress: Callable[[float], None],
) -> tuple[Places, dict[int, str]]:
    """Embed boxes of pictures as crops, each prepared as the space prepares a whole picture.

    A picture is read once and cropped as its turn comes. A crop that the space cannot embed is left out.

    Args:
        space: embeds `image`.
        images: `n` pictures, as `read_image` takes them.
        boxes_of: picture -> boxes `(k, 4)`; may raise `SampleError`.
        progress: called with the share that is done.

    Returns:
        places of all `n`, none for a picture without a single embedding, and by position why those have none.
    """
    failed: dict[int, str] = {}
    drawn: deque[tuple[int, Boxes]] = deque()  # what the encoder was handed and has not given back

    def batches() -> Iterator[list[Image.Image]]:
        for position, item in enumerate(images):
            try:
                picture = picture_of(item)
                boxes = boxes_of(picture)
            except SampleError as error:
                failed[position] = str(error)
                continue
            for start in range(0, len(boxes), _CROPS_AT_ONCE):
                part = boxes[start : start + _CROPS_AT_ONCE]
                drawn.append((position, part))
                yield [crop(picture, box) for box in part]

    with PlacesWriter(space.name, len(images)) as writer:
        for encoded in encode_batches_of(space, batches(), "image"):
            position, boxes = drawn.popleft()
            kept = [place for place in range(len(boxes)) if place not in encoded.failures]
            if kept:
                writer.add(position, encoded.rows.numpy(), boxes[kept])
            progress((position + 1) / len(images))
        places = writer.places()
    for position in np.flatnonzero(np.diff(places.starts) == 0).tolist():
        failed.setdefault(position, "none of its boxes could be embedded.")
    return places, failed

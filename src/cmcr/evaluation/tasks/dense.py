"""A map of cosines over a picture: of the space's own patches where it has them, else of windows cut from the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from cmcr.errors import ConfigError, SampleError
from cmcr.evaluation.tasks.places import Places, PlacesWriter, embed_boxes, picture_of
from cmcr.evaluation.tasks.proposals import Boxes
from cmcr.spaces.protocol import Space


@runtime_checkable
class PatchSpace(Protocol):
    """A space that embeds every patch of a picture beside the whole, as CLIP and SigLIP do."""

    name: str

    def patch_features(self, images: Any, size: int | tuple[int, int] | None, *, show_progress_bar: bool | None) -> Any:
        """Give `(n, rows, columns, D)` unit rows."""
        ...


@dataclass(frozen=True)
class DenseSettings:
    """How finely a picture is looked at.

    Attributes:
        pixels: with patches: what the whole picture is resized to, both multiples of the model's patch size; the number
            of patches follows. 224 suits patches of 14, 16 and 32 pixels.
        cells: without patches: rows and columns of the map.
        window: without patches: side of the window around each cell's centre, a share of the picture; at the edges
            it is moved inwards, not cut.
        patches: whether to take a space's patches where it has them.

    Raises:
        ConfigError: cells or a window out of range.
    """

    pixels: int | tuple[int, int] = 224
    cells: tuple[int, int] = (7, 7)
    window: float = 0.5
    patches: bool = True

    def __post_init__(self) -> None:
        if len(self.cells) != 2 or min(self.cells) < 1:
            raise ConfigError(f"cells: expected (rows, columns) of at least 1, got {self.cells}.")
        if not 0.01 <= self.window <= 1:
            raise ConfigError(f"window: expected 0.01 to 1, got {self.window}.")


@dataclass(frozen=True, eq=False)
class Cells:
    """Embedded maps of pictures.

    Attributes:
        places: patches or windows.
        grid: `(rows, columns)`: which of a picture's places each cell shows.
    """

    places: Places
    grid: NDArray[np.int64]

    def values(self, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lay the cosines `(k,)` of a picture's places out as a map `(rows, columns)`."""
        return cosines[self.grid]


def embed_cells(
    space: Space, images: Sequence[Any], settings: DenseSettings, progress: Callable[[float], None]
) -> tuple[Cells, dict[int, str]]:
    """Embed the cells of pictures.

    Returns:
        cells of all pictures, none for one that could not be read, and by position why.

    Raises:
        ConfigError: a size that does not suit the model's patches.
    """
    if settings.patches and isinstance(space, PatchSpace):
        return _embed_patches(space, images, settings.pixels, progress)
    windows, grid = window_grid(settings)
    places, failed = embed_boxes(space, images, lambda picture: windows, progress)
    for position in range(len(images)):
        if position not in failed and places.count(position) < len(windows):
            failed[position] = f"only {places.count(position)} of its {len(windows)} windows could be embedded."
    return Cells(places, grid), failed


def window_grid(settings: DenseSettings) -> tuple[Boxes, NDArray[np.int64]]:
    """Lay windows around the centres of cells, inside the picture.

    Returns:
        the different windows `(k, 4)`, and which of them each cell has, `(rows, columns)`.
    """
    half = settings.window / 2
    tops, lefts = (
        np.unique(np.clip((np.arange(count) + 0.5) / count, half, 1 - half) - half, return_inverse=True)
        for count in settings.cells
    )
    top, left = (part.ravel() for part in np.meshgrid(tops[0], lefts[0], indexing="ij"))
    windows = np.stack([left, top, left + settings.window, top + settings.window], axis=1)
    return windows, tops[1][:, None] * len(lefts[0]) + lefts[1]


def up_sampled(values: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Up-sample a map bilinearly; a cell's value stands at its centre and holds beyond the outermost centres.

    Args:
        values: `(rows, columns)`.
        shape: height and width to bring it to.
    """
    given = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))[None, None]
    return interpolate(given, size=shape, mode="bilinear", align_corners=False)[0, 0].numpy()


def _embed_patches(
    space: PatchSpace, images: Sequence[Any], pixels: int | tuple[int, int], progress: Callable[[float], None]
) -> tuple[Cells, dict[int, str]]:
    failed, shape = dict[int, str](), (0, 0)
    with PlacesWriter(space.name, len(images)) as writer:
        for position, item in enumerate(images):
            try:
                features = space.patch_features([picture_of(item)], pixels, show_progress_bar=False)[0]
            except SampleError as error:
                failed[position] = str(error)
            else:
                shape = features.shape[:2]
                writer.add(position, features.reshape(-1, features.shape[2]), _tiles(*shape))
            progress((position + 1) / len(images))
        places = writer.places()
    return Cells(places, np.arange(shape[0] * shape[1]).reshape(shape)), failed


def _tiles(rows: int, columns: int) -> Boxes:
    row, column = (part.ravel() for part in np.indices((rows, columns)))
    return np.stack([column / columns, row / rows, (column + 1) / columns, (row + 1) / rows], axis=1)

"""Regions of pictures: boxes that could hold what sounds, and a map over the whole picture, all embedded.

Boxes are `(left, top, right, bottom)` in shares of the picture's width and height, as in `evaluation.localization`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cmcr.data.images import read_image, to_rgb
from cmcr.engine.device import choose_device
from cmcr.errors import SampleError
from cmcr.evaluation.localization import Boxes
from cmcr.spaces.hub import PROCESSOR, WEIGHTS, find_snapshot, open_image_processor, open_model, require_files
from cmcr.spaces.protocol import Space
from cmcr.spaces.tower import encode_batches_of

Proposals = Callable[[Image.Image], Boxes]
"""Gives boxes `(k, 4)` of an upright RGB picture, the whole picture among them; may raise `SampleError`."""

DETECTOR = "hustvl/yolos-tiny"
DETECTOR_REVISION = "95a90f3c189fbfca3bcfc6d7315b9e84d95dc2de"

_GRID_SHAPES = ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75), (0.5, 1.0), (1.0, 0.5))  # width and height
_WHOLE = (0.0, 0.0, 1.0, 1.0)
_SMALLEST_SIDE = 0.01  # of a box that can be an answer: a thinner one may miss every pixel of the evaluation's map
_DETECTOR_FILES = ("*config.json", "model*.safetensors", "model*.json")
_LEAST_SCORE, _MOST_BOXES = 0.1, 50  # of a detector; a low score, because a missed source cannot be answered
_PATCHED_PIXELS = 224  # what a picture is resized to for a map of patches: suits patches of 14, 16 and 32 pixels
_CELLS, _WINDOW = 7, 0.5  # a map without patches: rows and columns, and the side of the window around each


@dataclass(frozen=True, eq=False)
class Regions:
    """Embedded regions of one picture, in float16: 5,000 pictures of 69 boxes and 196 patches, 512 wide, take 1.4 GB.

    Attributes:
        boxes: `(k, 4)` proposals.
        crops: `(k, D)` unit rows of the picture cut at these boxes.
        cells: `(rows, columns, D)` unit rows of a map: the space's own patches where it has them, else windows.
    """

    boxes: Boxes
    crops: NDArray[np.float16]
    cells: NDArray[np.float16]


def embed_regions(
    space: Space, images: Mapping[int, Any], proposals: Proposals, progress: Callable[[float], None]
) -> tuple[dict[int, Regions], dict[int, str]]:
    """Embed the proposals and the map of each picture, which is read once, when its turn comes.

    A crop is prepared as the space prepares a whole picture. A proposal that cannot be embedded is left out; a map is
    whole, or its picture is left out.

    Args:
        space: embeds `image`.
        images: by position, pictures as `read_image` takes them.
        proposals: picture -> boxes.
        progress: called with the share that is finished.

    Returns:
        regions by position, and by position why a picture has none.
    """
    found, failed = dict[int, Regions](), dict[int, str]()
    # Some embed every patch beside the whole picture; dual encoders that do not say so by `patch_size`.
    patches_of = getattr(space, "patch_features", None) if getattr(space, "patch_size", True) else None
    windows = _windows() if patches_of is None else np.empty((0, 4))
    waiting: deque[tuple[int, Image.Image, Boxes]] = deque()  # what the encoder was handed and has not given back

    def batches() -> Iterator[list[Image.Image]]:
        for position, item in images.items():
            try:
                picture = to_rgb(read_image(item))
                boxes = proposals(picture)
            except SampleError as error:
                failed[position] = str(error)
                continue
            waiting.append((position, picture, boxes))
            yield [crop(picture, box) for box in (*boxes, *windows)]

    for encoded in encode_batches_of(space, batches(), "image"):
        position, picture, boxes = waiting.popleft()
        usable = [row for row in range(len(boxes)) if row not in encoded.failures]
        crops, cells = np.split(encoded.rows.numpy().astype(np.float16), [len(usable)])
        try:
            if not usable:
                raise SampleError("none of its boxes could be embedded.")
            if patches_of is not None:
                cells = np.asarray(patches_of([picture], _PATCHED_PIXELS, show_progress_bar=False)[0], np.float16)
            elif len(cells) < len(windows):
                raise SampleError(f"only {len(cells)} of the {len(windows)} windows of its map could be embedded.")
            else:
                inner = cells.reshape(_CELLS - 2, _CELLS - 2, -1)
                cells = np.pad(inner, ((1, 1), (1, 1), (0, 0)), mode="edge")  # moved inwards, edge cells share windows
            found[position] = Regions(boxes[usable], crops, cells)
        except SampleError as error:
            failed[position] = str(error)
        progress((len(found) + len(failed)) / len(images))
    return found, failed


def _windows() -> Boxes:
    """Lay windows around the inner cells, row by row; those at the edge of the picture would reach over it."""
    starts = (np.arange(1, _CELLS - 1) + 0.5) / _CELLS - _WINDOW / 2
    starts = starts.clip(0, 1 - _WINDOW)
    return np.array([(left, top, left + _WINDOW, top + _WINDOW) for top in starts for left in starts])


def grid_boxes() -> Boxes:
    """Slide boxes of several shapes over a picture, evenly from edge to edge, by at most half their own side.

    Returns:
        `(69, 4)`: the whole picture, then all boxes shape by shape, row by row.
    """
    starts = {side: np.linspace(0.0, 1 - side, count) for side, count in ((0.25, 7), (0.5, 3), (0.75, 2), (1.0, 1))}
    boxes = [
        (left, top, left + width, top + height)
        for width, height in _GRID_SHAPES
        for top in starts[height]
        for left in starts[width]
    ]
    return with_whole_picture(boxes)


def detector(model: str | Path = DETECTOR, revision: str | None = None) -> Proposals:
    """Open a published object detector, whose boxes are proposals, whatever it takes their contents for.

    Any model that transformers opens as `AutoModelForObjectDetection` and whose image processor turns its output into
    boxes. Some need further libraries (DETR with a convolutional backbone needs timm), YOLOS does not.

    Args:
        model: a folder or the name of a repository on the hub.
        revision: commit, tag or branch; None is a pinned commit for the default model, else the main branch.

    Returns:
        proposals: the whole picture, then at most 50 boxes that score 0.1 or more, best first.

    Raises:
        ArtefactNotFoundError: the files are neither here nor within reach; the message says what to fetch.
        FormatError: files that are missing or damaged, or no object detector.
        ConfigError: an unknown revision.
        MissingDependencyError: transformers is not installed.
    """
    if revision is None and str(model) == DETECTOR and not Path(model).is_dir():
        revision = DETECTOR_REVISION
    snapshot = find_snapshot(model, revision, files=_DETECTOR_FILES)
    require_files(snapshot, ("config.json",), WEIGHTS, PROCESSOR)
    device = choose_device("auto")
    processor = open_image_processor(snapshot)
    network = open_model(snapshot, "AutoModelForObjectDetection").float().to(device)

    def detected(picture: Image.Image) -> Boxes:
        try:
            inputs = processor(images=picture, return_tensors="pt")
            with torch.no_grad():
                output = network(pixel_values=inputs["pixel_values"].to(device))
            (found,) = processor.post_process_object_detection(
                output,
                threshold=_LEAST_SCORE,
                target_sizes=[(1, 1)],  # boxes in shares
            )
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the processors raise whatever an odd picture, such as a strip, leads them into
            raise SampleError(f"{snapshot.source} cannot look for objects in it ({error}).") from error
        best = torch.argsort(found["scores"], descending=True, stable=True)[:_MOST_BOXES]
        return with_whole_picture(found["boxes"][best].cpu().numpy())

    return detected


def with_whole_picture(boxes: ArrayLike) -> Boxes:
    """Make boxes `(k, 4)` fit to be answers: cut at the picture's edges, none too thin, the whole picture first and once.

    Of equally good answers the first is taken, which is then the whole picture.
    """
    inside = np.clip(np.asarray(boxes, dtype=np.float64).reshape(-1, 4), 0.0, 1.0)
    sides = inside[:, 2:] - inside[:, :2]
    usable = inside[(sides >= _SMALLEST_SIDE).all(axis=1) & (sides < 1.0).any(axis=1)]
    return np.concatenate([[_WHOLE], usable])


def crop(picture: Image.Image, box: NDArray[np.float64]) -> Image.Image:
    """Cut a box out of a picture, its corners rounded to the nearest pixel; at least one pixel."""
    left, top, right, bottom = (
        round(edge) for edge in box * (picture.width, picture.height, picture.width, picture.height)
    )
    left, top = min(left, picture.width - 1), min(top, picture.height - 1)
    return picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))

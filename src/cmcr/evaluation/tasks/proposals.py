"""Boxes that could hold what sounds: a grid over the picture, or what an object detector finds.

Boxes are `(left, top, right, bottom)` in shares of the picture's width and height, as in `evaluation.localization`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cmcr.data.images import to_rgb
from cmcr.engine.device import choose_device
from cmcr.errors import ConfigError, SampleError
from cmcr.spaces.hub import PROCESSOR, WEIGHTS, Snapshot, find_snapshot, open_model, open_processor, require_files

Boxes = NDArray[np.float64]

DETECTOR = "hustvl/yolos-tiny"
DETECTOR_REVISION = "95a90f3c189fbfca3bcfc6d7315b9e84d95dc2de"

SMALLEST_SIDE = 0.01
"""Of a box that can be an answer: a thinner one may miss every pixel of the evaluation's map."""

_WHOLE = (0.0, 0.0, 1.0, 1.0)
_FILES = ("config.json", *PROCESSOR, "model*.safetensors", "model.safetensors.index.json")


class Proposals(Protocol):
    """Proposes where to look."""

    def boxes(self, picture: Image.Image) -> Boxes:
        """Give boxes `(k, 4)` of an upright RGB picture; the whole picture must be one of them.

        Raises:
            SampleError: it cannot be looked at.
        """
        ...


@dataclass(frozen=True)
class GridProposals:
    """Boxes of several shapes slid over the picture, the same for every picture.

    Positions are spread evenly from edge to edge, no further apart than `stride`.

    Attributes:
        shapes: `(width, height)` of the boxes, shares of the picture above 0 and up to 1.
        stride: the largest step, as a share of the box's own side.

    Raises:
        ConfigError: a shape or stride out of range.
    """

    shapes: tuple[tuple[float, float], ...] = ((0.25, 0.25), (0.5, 0.5), (0.75, 0.75), (0.5, 1.0), (1.0, 0.5))
    stride: float = 0.5

    def __post_init__(self) -> None:
        for shape in self.shapes:
            if len(shape) != 2 or not all(SMALLEST_SIDE <= side <= 1 for side in shape):
                raise ConfigError(f"shapes: expected (width, height) from {SMALLEST_SIDE} to 1, got {shape}.")
        if not 0 < self.stride <= 1:
            raise ConfigError(f"stride: expected above 0 and up to 1, got {self.stride}.")

    def boxes(self, picture: Image.Image) -> Boxes:
        """Give the whole picture, then all boxes shape by shape, row by row."""
        found = [_WHOLE]
        for width, height in self.shapes:
            found += [
                (left, top, left + width, top + height)
                for top in _positions(height, self.stride)
                for left in _positions(width, self.stride)
            ]
        return with_whole_picture(found)


class DetectorProposals:
    """What a published object detector finds, whatever it takes it for.

    Any model that transformers opens as `AutoModelForObjectDetection` and whose image processor turns its output into
    boxes. Some need further libraries (DETR with a convolutional backbone needs timm), YOLOS does not.

    Args:
        model: a folder or the name of a repository on the hub.
        revision: commit, tag or branch; None is a pinned commit for the default model, else the main branch.
        threshold: the least score of a box, 0 to 1. Low, because a missed source cannot be answered.
        top: the most boxes, best first.
        device: where to compute; None takes a GPU if there is one.
        local_files_only: never fetch anything.

    Raises:
        ArtefactNotFoundError: the files are neither here nor within reach; the message says what to fetch.
        FormatError: files that are missing or damaged, or no object detector.
        ConfigError: an unknown revision, or a threshold or top out of range.
        DeviceError: a device that this machine does not have.
        MissingDependencyError: transformers is not installed.
    """

    def __init__(
        self,
        model: str | Path = DETECTOR,
        revision: str | None = None,
        *,
        threshold: float = 0.1,
        top: int = 50,
        device: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ConfigError(f"threshold: expected 0 to 1, got {threshold}.")
        if isinstance(top, bool) or top < 1:
            raise ConfigError(f"top: expected at least 1, got {top}.")
        self._where = choose_device(device or "auto")
        if revision is None and str(model) == DETECTOR and not Path(model).is_dir():
            revision = DETECTOR_REVISION
        snapshot = find_snapshot(model, revision, local_files_only=local_files_only, files=_FILES)
        require_files(snapshot, ("config.json",), WEIGHTS, PROCESSOR)
        self._processor = open_processor(snapshot, *_processor_classes(snapshot), "AutoImageProcessor")
        self._model = open_model(snapshot, "AutoModelForObjectDetection", "float32").to(self._where)
        self.source, self.revision, self.threshold, self.top = snapshot.source, snapshot.revision, threshold, top

    def boxes(self, picture: Image.Image) -> Boxes:
        """Give the whole picture, then what the detector finds, best first.

        Raises:
            SampleError: a picture that the detector cannot read.
        """
        try:
            found = self._found(picture)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the processors raise whatever an odd picture, such as a strip, leads them into
            raise SampleError(f"{self.source} cannot look for objects in it ({error}).") from error
        best = torch.argsort(found["scores"], descending=True, stable=True)[: self.top]
        return with_whole_picture(found["boxes"][best].cpu().numpy())

    def _found(self, picture: Image.Image) -> dict[str, Any]:
        inputs = self._processor(images=to_rgb(picture), return_tensors="pt")
        with torch.no_grad():
            output = self._model(pixel_values=inputs["pixel_values"].to(self._where))
        found: list[dict[str, Any]] = self._processor.post_process_object_detection(
            output,
            threshold=self.threshold,
            target_sizes=[(1, 1)],  # boxes in shares
        )
        return found[0]


def with_whole_picture(boxes: ArrayLike) -> Boxes:
    """Make boxes fit to be answers: cut at the picture's edges, none too thin, the whole picture first and once.

    Args:
        boxes: `(k, 4)`; may be none.

    Returns:
        `(1 + k', 4)`: of equally good answers the first is taken, which is then the whole picture.
    """
    inside = np.clip(np.asarray(boxes, dtype=np.float64).reshape(-1, 4), 0.0, 1.0)
    sides = inside[:, 2:] - inside[:, :2]
    usable = inside[(sides >= SMALLEST_SIDE).all(axis=1) & (sides < 1.0).any(axis=1)]
    return np.concatenate([[_WHOLE], usable])


def crop(picture: Image.Image, box: NDArray[np.float64]) -> Image.Image:
    """Cut a box out of a picture, its corners rounded to the nearest pixel; at least one pixel."""
    left, top, right, bottom = (
        round(edge) for edge in box * (picture.width, picture.height, picture.width, picture.height)
    )
    left, top = min(left, picture.width - 1), min(top, picture.height - 1)
    return picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def _positions(side: float, stride: float) -> NDArray[np.float64]:
    steps = int(np.ceil((1 - side) / (side * stride) - 1e-9))  # the quotient may lie a rounding above a whole number
    return np.linspace(0.0, 1 - side, steps + 1)


def _processor_classes(snapshot: Snapshot) -> list[str]:
    """Name the image processor that computes with Pillow and numpy, where the files say which one it is.

    `AutoImageProcessor` alone would take another one where torchvision happens to be installed, with other pixels.
    """
    for name in PROCESSOR:
        path = snapshot.folder / name
        if not path.is_file():
            continue
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings = settings.get("image_processor", settings)
        kind = settings.get("image_processor_type") or settings.get("feature_extractor_type")
        if kind:
            plain = str(kind).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
            return [f"{plain}Pil"]
    return []

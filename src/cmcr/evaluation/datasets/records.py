"""What a data set is to a task: items to retrieve, to classify, to localize, or to recognize.

In every record, `name` is the data set with its split; items are as `space.encode` reads them; `ids` are unique and do not
depend on where the files are; `left_out` counts the items that the annotations name and that are missing. Columns of
different lengths, or indices out of range, are a `DimensionError`, a duplicate id is a `ConfigError`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcr.data.audio import SoundClip
from cmcr.data.videos import VideoFrame
from cmcr.errors import ConfigError, DimensionError
from cmcr.evaluation.metrics import PerQuery
from cmcr.files import reading


class _Hashed:
    @cached_property
    def content_hash(self) -> str:
        """Sha256 over all fields, with file sizes instead of files: independent of the system and of where the files are.

        Raises:
            ReadError: a file is no longer there.
        """
        content = json.dumps([type(self).__name__, _identity(self)], separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class RetrievalRecord(_Hashed):
    """Retrieval and retention: which first item belongs to which second items.

    Args:
        modalities: of the first and of the second items.
        first: `n` items.
        second: `m` items.
        first_ids: `n`.
        second_ids: `m`.
        positives: rows of `second` for each of `first`, at least one.
    """

    name: str
    modalities: tuple[str, str]
    first: Sequence[Any]
    second: Sequence[Any]
    first_ids: Sequence[str]
    second_ids: Sequence[str]
    positives: PerQuery
    left_out: int = 0

    def __post_init__(self) -> None:
        _check_columns(self.name, self.first_ids, first=self.first, positives=self.positives)
        _check_columns(self.name, self.second_ids, second=self.second)
        _check_range(f"{self.name}: positives", self.positives.values, len(self.second))


@dataclass(frozen=True, eq=False)
class ClassificationRecord(_Hashed):
    """Zero-shot classification.

    Args:
        items: `n`, of the modality.
        labels: `(n,)` index into `classes` of each item.
        classes: names of the classes, in words.
    """

    name: str
    modality: str
    items: Sequence[Any]
    ids: Sequence[str]
    labels: NDArray[np.int64]
    classes: Sequence[str]
    left_out: int = 0

    def __post_init__(self) -> None:
        _check_columns(self.name, self.ids, items=self.items, labels=self.labels)
        _check_range(f"{self.name}: labels", self.labels, len(self.classes))


@dataclass(frozen=True, eq=False)
class LocalizationRecord(_Hashed):
    """Localization: where in the picture is the source of the sound?

    Args:
        images: `n` pictures.
        sounds: `n` sounds.
        boxes: for each item `(b, 4)`, at least one, by annotator or object: left, top, right, bottom as shares of the
            picture's width and height, 0 to 1. Items without one are left out, and counted.
        groups: `n`, what each item belongs to, such as its video: items of one group vary together. None if each stands alone.
    """

    name: str
    images: Sequence[Any]
    sounds: Sequence[Any]
    ids: Sequence[str]
    boxes: Sequence[NDArray[np.float64]]
    left_out: int = 0
    groups: Sequence[str] | None = None

    def __post_init__(self) -> None:
        _check_columns(self.name, self.ids, images=self.images, sounds=self.sounds, boxes=self.boxes)
        _check_columns(self.name, self.ids, **({} if self.groups is None else {"groups": self.groups}))
        for name, boxes in zip(self.ids, self.boxes, strict=True):
            fits = boxes.ndim == 2 and boxes.shape[1] == 4 and len(boxes) > 0
            if not (fits and (boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
                raise DimensionError(
                    f"{self.name}: boxes of {name}: expected (b, 4) as left, top, right, bottom in [0, 1] with right > left "
                    f"and bottom > top, got {boxes.tolist()!r:.120}."
                )


@dataclass(frozen=True, eq=False)
class CounterfactualRecord(_Hashed):
    """Counterfactual recognition: is the source of the sound in the picture?

    Args:
        images: `n` pictures.
        sounds: `n` sounds.
        present: `(n,)` whether it is.
        groups: `n`, as of a `LocalizationRecord`: the picture that several sounds are played to.
    """

    name: str
    images: Sequence[Any]
    sounds: Sequence[Any]
    ids: Sequence[str]
    present: NDArray[np.bool_]
    left_out: int = 0
    groups: Sequence[str] | None = None

    def __post_init__(self) -> None:
        _check_columns(self.name, self.ids, images=self.images, sounds=self.sounds, present=self.present)
        _check_columns(self.name, self.ids, **({} if self.groups is None else {"groups": self.groups}))


Record = RetrievalRecord | ClassificationRecord | LocalizationRecord | CounterfactualRecord


def _check_columns(name: str, ids: Sequence[str], **columns: Any) -> None:
    for column, values in columns.items():
        if len(values) != len(ids):
            raise DimensionError(f"{name}: expected {len(ids)} {column}, got {len(values)}.")
    if len(set(ids)) < len(ids):
        raise ConfigError(f"{name}: duplicate id {Counter(ids).most_common(1)[0][0]!r}.")


def _check_range(name: str, values: NDArray[np.integer], count: int) -> None:
    if len(values) and not (int(values.min()) >= 0 and int(values.max()) < count):
        raise DimensionError(f"{name}: expected 0..{count - 1}, got {int(values.min())}..{int(values.max())}.")


def clusters_of(groups: Sequence[str] | None, kept: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Number the groups of the items that are left, as `cmcr.evaluation.intervals.Clusters`."""
    return None if groups is None else np.unique([groups[item] for item in kept.tolist()], return_inverse=True)[1]


def _identity(value: Any) -> Any:
    """Reduce a record, or an item of one, to what JSON holds.

    The size stands for the content of a file: hashing gigabytes would take longer than many a task.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Path):
        with reading(value):
            return value.stat().st_size
    if isinstance(value, VideoFrame | SoundClip):  # their path may be a string, which would be hashed as it stands
        value = replace(value, path=Path(value.path))
    if is_dataclass(value):
        # Groups say nothing of their own: they are read off the ids.
        return [_identity(getattr(value, field.name)) for field in fields(value) if field.name != "groups"]
    if isinstance(value, np.ndarray | Image.Image):
        array = np.asarray(value)
        # The default integer has 32 bits on some systems, and some store the highest byte first.
        plain = np.ascontiguousarray(array, dtype="<i8" if array.dtype.kind in "iub" else array.dtype.newbyteorder("<"))
        return [list(plain.shape), plain.dtype.str, hashlib.sha256(plain.tobytes()).hexdigest()]
    if isinstance(value, Mapping):
        return {str(key): _identity(one) for key, one in sorted(value.items())}
    return [_identity(one) for one in value]

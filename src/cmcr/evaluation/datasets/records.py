"""What a data set is to a task: pairs, labelled items, items with boxes, or items with a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import ConfigError, DimensionError
from cmcr.evaluation.datasets.fingerprint import hash_of, identity_of
from cmcr.evaluation.metrics import PerQuery


@dataclass(frozen=True, eq=False)
class RetrievalRecord:
    """Retrieval and retention: which first item belongs to which second items.

    Args:
        name: of the data set and split.
        modalities: of the first and of the second items.
        first: `n` items as `space.encode` reads them.
        second: `m` items.
        first_ids: `n` names, each once, that do not depend on where the files lie.
        second_ids: `m` names, each once.
        positives: rows of `second` for each of `first`, at least one.
        left_out: items that the annotations name and that are not here.

    Raises:
        DimensionError: lengths that differ, or a positive that is not there.
        ConfigError: an id that is there twice.
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
        _check_ids(self.name, self.first_ids, first=self.first)
        _check_ids(self.name, self.second_ids, second=self.second)
        _check_lengths(self.name, len(self.first), positives=self.positives)
        values = self.positives.values
        if not (int(values.min()) >= 0 and int(values.max()) < len(self.second)):
            raise DimensionError(
                f"{self.name}: positives must be rows 0..{len(self.second) - 1} of the second items, got "
                f"{int(values.min())}..{int(values.max())}."
            )

    def turned(self) -> RetrievalRecord:
        """Give the other direction: which second item belongs to which first items.

        Raises:
            TooFewRowsError: a second item that belongs to none.
        """
        owners = np.repeat(np.arange(len(self.positives)), self.positives.counts)
        order = np.argsort(self.positives.values, kind="stable")
        counts = np.bincount(self.positives.values, minlength=len(self.second))
        positives = PerQuery(owners[order], np.concatenate([[0], np.cumsum(counts)]))
        return replace(
            self,
            modalities=(self.modalities[1], self.modalities[0]),
            first=self.second,
            second=self.first,
            first_ids=self.second_ids,
            second_ids=self.first_ids,
            positives=positives,
        )

    @cached_property
    def content_hash(self) -> str:
        """Sha256 over names, ids, positives, texts and sizes of files; the same wherever the files lie."""
        return hash_of(
            ["pairs", self.name, list(self.modalities), list(self.first_ids), list(self.second_ids), self.left_out],
            identity_of(self.first),
            identity_of(self.second),
            self.positives.values.astype(np.int64),
            self.positives.starts.astype(np.int64),
        )


@dataclass(frozen=True, eq=False)
class ClassificationRecord:
    """Zero-shot classification.

    Args:
        name: of the data set and split.
        modality: of the items.
        items: `n` items as `space.encode` reads them.
        ids: `n` names, each once.
        labels: `(n,)` the row of each item's class.
        classes: names of the classes, in words.
        left_out: items that the annotations name and that are not here.

    Raises:
        DimensionError: lengths that differ, or a label without a class.
        ConfigError: an id that is there twice.
    """

    name: str
    modality: str
    items: Sequence[Any]
    ids: Sequence[str]
    labels: NDArray[np.int64]
    classes: Sequence[str]
    left_out: int = 0

    def __post_init__(self) -> None:
        _check_ids(self.name, self.ids, items=self.items)
        _check_lengths(self.name, len(self.ids), labels=self.labels)
        if len(self.labels) and not (int(self.labels.min()) >= 0 and int(self.labels.max()) < len(self.classes)):
            raise DimensionError(
                f"{self.name}: labels must be 0..{len(self.classes) - 1}, got {int(self.labels.min())}.."
                f"{int(self.labels.max())}."
            )

    @cached_property
    def content_hash(self) -> str:
        """Sha256 over names, ids, labels, classes and sizes of files; the same wherever the files lie."""
        return hash_of(
            ["labelled", self.name, self.modality, list(self.ids), list(self.classes), self.left_out],
            identity_of(self.items),
            self.labels.astype(np.int64),
        )


@dataclass(frozen=True, eq=False)
class LocalizationRecord:
    """Localisation: where in the picture is what sounds.

    Args:
        name: of the data set and split.
        images: `n` pictures as `space.encode` reads them.
        sounds: `n` sounds.
        ids: `n` names, each once.
        boxes: of each item `(b, 4)`, of annotators or objects, at least one: left, top, right, bottom as shares of the
            picture's width and height, 0 to 1.
        left_out: items that the annotations name and that are not here, or whose boxes are empty.

    Raises:
        DimensionError: lengths that differ, or boxes of another shape.
        ConfigError: an id that is there twice.
    """

    name: str
    images: Sequence[Any]
    sounds: Sequence[Any]
    ids: Sequence[str]
    boxes: Sequence[NDArray[np.float64]]
    left_out: int = 0

    def __post_init__(self) -> None:
        _check_ids(self.name, self.ids, images=self.images, sounds=self.sounds, boxes=self.boxes)
        for name, boxes in zip(self.ids, self.boxes, strict=True):
            fits = boxes.ndim == 2 and boxes.shape[1] == 4 and len(boxes) > 0
            if not (fits and (boxes >= 0).all() and (boxes <= 1).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
                raise DimensionError(
                    f"{self.name}: boxes of {name}: expected (b, 4) as left, top, right, bottom in [0, 1] with right > left "
                    f"and bottom > top, got {boxes.tolist()!r:.120}."
                )

    @cached_property
    def content_hash(self) -> str:
        """Sha256 over names, ids, boxes and sizes of files; the same wherever the files lie."""
        return hash_of(
            ["grounded", self.name, list(self.ids), [len(boxes) for boxes in self.boxes], self.left_out],
            identity_of(self.images),
            identity_of(self.sounds),
            np.concatenate(self.boxes).astype(np.float64),
        )


@dataclass(frozen=True, eq=False)
class CounterfactualRecord:
    """Counterfactual recognition: is what sounds in the picture?

    Args:
        name: of the data set and split.
        images: `n` pictures as `space.encode` reads them.
        sounds: `n` sounds.
        ids: `n` names, each once.
        present: `(n,)` whether it is.
        left_out: items that the annotations name and that are not here.

    Raises:
        DimensionError: lengths that differ.
        ConfigError: an id that is there twice.
    """

    name: str
    images: Sequence[Any]
    sounds: Sequence[Any]
    ids: Sequence[str]
    present: NDArray[np.bool_]
    left_out: int = 0

    def __post_init__(self) -> None:
        _check_ids(self.name, self.ids, images=self.images, sounds=self.sounds)
        _check_lengths(self.name, len(self.ids), present=self.present)

    @cached_property
    def content_hash(self) -> str:
        """Sha256 over names, ids, verdicts and sizes of files; the same wherever the files lie."""
        return hash_of(
            ["judged", self.name, list(self.ids), self.left_out],
            identity_of(self.images),
            identity_of(self.sounds),
            self.present.astype(np.int64),
        )


Record = RetrievalRecord | ClassificationRecord | LocalizationRecord | CounterfactualRecord


def _check_ids(name: str, ids: Sequence[str], **columns: Sequence[Any]) -> None:
    _check_lengths(name, len(ids), **columns)
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = next(one for one in ids if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        raise ConfigError(f"{name}: the id {twice!r} is there more than once.")


def _check_lengths(name: str, expected: int, **columns: Any) -> None:
    for column, values in columns.items():
        if len(values) != expected:
            raise DimensionError(f"{name}: expected {expected} {column}, got {len(values)}.")

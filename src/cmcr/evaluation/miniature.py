"""The evaluation's data sets in the miniature world of three-digit numbers: every task, whole, without a download.

Test handwriting and test voices only, which no training has met.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cmcr.data.numbers import (
    ALL_NUMBERS,
    SAMPLE_RATE_HZ,
    class_texts,
    draw_pictures,
    sample_point_clouds,
    speak_sounds,
    write_texts,
)
from cmcr.errors import ConfigError, unknown_name
from cmcr.evaluation.datasets.records import (
    ClassificationRecord,
    CounterfactualRecord,
    LocalizationRecord,
    RetrievalRecord,
)
from cmcr.evaluation.metrics import PerQuery

Record = RetrievalRecord | ClassificationRecord | LocalizationRecord | CounterfactualRecord

_Draw = Callable[[np.random.Generator, int], Record]
"""Draws so many items."""

_TILES = (2, 2)  # rows and columns of numbers in a picture with several
_SILENT_SAMPLES = 2 * SAMPLE_RATE_HZ


def mini_prompts(classes: Sequence[str]) -> list[list[str]]:
    """Phrase every number in all its different wordings, as the miniature text towers know them."""
    return [list(dict.fromkeys(class_texts(int(name)))) for name in classes]


def mini_record(name: str, seed: int = 0, items: int | None = None) -> Record:
    """Draw a data set of the miniature world.

    Args:
        name: one of `MINI_RECORDS`.
        seed: of handwriting, voices, places and noise.
        items: how many; None takes all thousand numbers, or 400 pictures for localization and recognition.

    Raises:
        ConfigError: there is none of that name, or a number of items out of range.
    """
    if name not in MINI_RECORDS:
        raise unknown_name("run", name, MINI_RECORDS)
    draw, most = MINI_RECORDS[name]
    count = most if items is None else items
    if not 8 <= count <= most:
        raise ConfigError(f"{name}: expected 8 to {most} items, got {count}.")
    return draw(np.random.default_rng([seed, *name.encode()]), count)


def _numbers(count: int) -> NDArray[np.int64]:
    """Choose so many of the thousand numbers, evenly spaced."""
    return ALL_NUMBERS[np.arange(count) * len(ALL_NUMBERS) // count]


def _items(modality: str, numbers: NDArray[np.int64], rng: np.random.Generator) -> list[Any]:
    if modality == "image":
        return list(draw_pictures(numbers, "test", rng))
    if modality == "audio":
        return [_sound(samples) for samples in speak_sounds(numbers, "test", rng)]
    if modality == "point_cloud":
        return list(sample_point_clouds(numbers, "test", rng))
    return write_texts(numbers, rng)


def _sound(samples: NDArray[np.float32]) -> dict[str, Any]:
    return {"array": samples, "sampling_rate": SAMPLE_RATE_HZ}


def _pairs(first: str, second: str) -> _Draw:
    """Make each number once in either modality; a number's two items belong together."""

    def draw(rng: np.random.Generator, count: int) -> RetrievalRecord:
        numbers = _numbers(count)
        ids = [f"{number:03d}" for number in numbers]
        return RetrievalRecord(
            name=f"miniature {first} and {second}",
            modalities=(first, second),
            first=_items(first, numbers, rng),
            second=_items(second, numbers, rng),
            first_ids=ids,
            second_ids=ids,
            positives=PerQuery.one(np.arange(count)),
        )

    return draw


def _labelled(modality: str) -> _Draw:
    def draw(rng: np.random.Generator, count: int) -> ClassificationRecord:
        numbers = _numbers(count)
        ids = [f"{number:03d}" for number in numbers]
        return ClassificationRecord(
            f"miniature {modality}", modality, _items(modality, numbers, rng), ids, np.arange(count), ids
        )

    return draw


def _crowded(rng: np.random.Generator, count: int) -> tuple[list[Image.Image], NDArray[np.int64]]:
    """Draw pictures of four different numbers each, and say which number stands in which tile."""
    rows, columns = _TILES
    numbers = np.stack([rng.choice(ALL_NUMBERS, rows * columns, replace=False) for _ in range(count)])
    tiles = draw_pictures(numbers.ravel(), "test", rng)
    height, width = tiles.shape[1:]
    grid = tiles.reshape(count, rows, columns, height, width).swapaxes(2, 3)
    return [Image.fromarray(picture) for picture in grid.reshape(count, rows * height, columns * width)], numbers


def _grounded(rng: np.random.Generator, count: int) -> LocalizationRecord:
    """Speak one of the four numbers of a picture: where is it?"""
    pictures, numbers = _crowded(rng, count)
    tiles = rng.integers(0, numbers.shape[1], len(pictures))
    spoken = numbers[np.arange(len(pictures)), tiles]
    sounds = [_sound(samples) for samples in speak_sounds(spoken, "test", rng)]
    return LocalizationRecord(
        name="miniature localization",
        images=pictures,
        sounds=sounds,
        ids=[f"{position:03d}" for position in range(len(pictures))],
        boxes=[_tile(int(tile))[None] for tile in tiles],
    )


def _tile(tile: int) -> NDArray[np.float64]:
    rows, columns = _TILES
    top, left = divmod(tile, columns)
    return np.array([left / columns, top / rows, (left + 1) / columns, (top + 1) / rows])


def _judged(rng: np.random.Generator, count: int) -> CounterfactualRecord:
    """Show one number; speak it, speak another that is not in the picture, be silent, or play noise."""
    numbers = rng.choice(ALL_NUMBERS, count, replace=False)
    pictures = list(draw_pictures(numbers, "test", rng))
    kinds = np.arange(count) % 8  # half of them present; of the others two in four off-screen, one silent, one noise
    spoken = np.where(kinds < 4, numbers, np.roll(numbers, 1))
    sounds = [_sound(samples) for samples in speak_sounds(spoken, "test", rng)]
    for position in np.flatnonzero(kinds == 6):
        sounds[position] = _sound(np.zeros(_SILENT_SAMPLES, dtype=np.float32))
    for position in np.flatnonzero(kinds == 7):
        sounds[position] = _sound(rng.normal(0.0, 0.1, _SILENT_SAMPLES).astype(np.float32))
    ids = [f"{position:03d}" for position in range(count)]
    return CounterfactualRecord("miniature counterfactual", pictures, sounds, ids, kinds < 4)


MINI_RECORDS: Mapping[str, tuple[_Draw, int]] = {
    "retrieval/mini-audio-image": (_pairs("audio", "image"), 1000),
    "retrieval/mini-point_cloud-text": (_pairs("point_cloud", "text"), 1000),
    "localization/mini": (_grounded, 400),
    "counterfactual/mini": (_judged, 400),
    "classification/mini-point_cloud": (_labelled("point_cloud"), 1000),
    "classification/mini-image": (_labelled("image"), 1000),
    "classification/mini-audio": (_labelled("audio"), 1000),
    "retention/mini-image-text": (_pairs("image", "text"), 1000),
    "retention/mini-audio-text": (_pairs("audio", "text"), 1000),
    "retention/mini-point_cloud-image": (_pairs("point_cloud", "image"), 1000),
}
"""By the name of the run: what draws it, and its full size."""

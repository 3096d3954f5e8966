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
    Split,
    class_texts,
    draw_pictures,
    sample_point_clouds,
    speak_sounds,
    write_texts,
)
from cmcr.errors import ConfigError
from cmcr.evaluation.datasets.records import (
    ClassificationRecord,
    CounterfactualRecord,
    LocalizationRecord,
    Record,
    RetrievalRecord,
)
from cmcr.evaluation.metrics import PerQuery

Numbers = NDArray[np.int64]

MINI_RUNS: Mapping[str, tuple[str, str]] = {
    "retrieval/mini-audio-image": ("audio", "image"),
    "retrieval/mini-point_cloud-text": ("point_cloud", "text"),
    "localization/mini": ("image", "audio"),
    "counterfactual/mini": ("image", "audio"),
    "classification/mini-point_cloud": ("point_cloud", "text"),
    "classification/mini-image": ("image", "text"),
    "classification/mini-audio": ("audio", "text"),
    "retention/mini-image-text": ("image", "text"),
    "retention/mini-audio-text": ("audio", "text"),
    "retention/mini-point_cloud-image": ("point_cloud", "image"),
}
"""Every run on the miniature world, as TASK/NAME, with the modalities it compares."""

_TILES = (2, 2)  # rows and columns of numbers in a picture with several
_SILENT_SAMPLES = 2 * SAMPLE_RATE_HZ


def mini_prompts(classes: Sequence[str]) -> list[list[str]]:
    """Phrase every number in all its different wordings, as the miniature text towers know them."""
    return [list(dict.fromkeys(class_texts(int(name)))) for name in classes]


def mini_record(run: str, seed: int = 0, limit: int | None = None) -> Record:
    """Draw a data set of the miniature world: all thousand numbers, or 400 pictures for localization and recognition.

    Args:
        run: one of `MINI_RUNS`.
        seed: of handwriting, voices, places and noise.
        limit: the most items, at least 8; None takes all.

    Raises:
        ConfigError: a limit below 8.
    """
    count = 400 if run.startswith(("localization", "counterfactual")) else len(ALL_NUMBERS)
    if limit is not None and limit < 8:
        raise ConfigError(f"{run}: expected at least 8 items, got {limit}.")
    rng = np.random.default_rng([seed, *run.encode()])
    return _DRAW[run.split("/")[0]](MINI_RUNS[run], count if limit is None else min(limit, count), rng)


def draw_items(modality: str, numbers: Numbers, split: Split, rng: np.random.Generator) -> list[Any]:
    """Draw an item of each number, as the miniature spaces read them."""
    if modality == "image":
        return list(draw_pictures(numbers, split, rng))
    if modality == "audio":
        return [_sound(samples) for samples in speak_sounds(numbers, split, rng)]
    if modality == "point_cloud":
        return list(sample_point_clouds(numbers, split, rng))
    return write_texts(numbers, rng)


def _sound(samples: NDArray[np.float32]) -> dict[str, Any]:
    return {"array": samples, "sampling_rate": SAMPLE_RATE_HZ}


def _evenly_spaced(count: int) -> Numbers:
    return ALL_NUMBERS[np.arange(count) * len(ALL_NUMBERS) // count]


def _pairs(modalities: tuple[str, str], count: int, rng: np.random.Generator) -> RetrievalRecord:
    """Draw each number once in either modality; a number's two items belong together."""
    numbers = _evenly_spaced(count)
    ids = [f"{number:03d}" for number in numbers]
    return RetrievalRecord(
        name=f"miniature {modalities[0]} and {modalities[1]}",
        modalities=modalities,
        first=draw_items(modalities[0], numbers, "test", rng),
        second=draw_items(modalities[1], numbers, "test", rng),
        first_ids=ids,
        second_ids=ids,
        positives=PerQuery.one(np.arange(count)),
    )


def _classes(modalities: tuple[str, str], count: int, rng: np.random.Generator) -> ClassificationRecord:
    modality, _ = modalities
    numbers = _evenly_spaced(count)
    ids = [f"{number:03d}" for number in numbers]
    items = draw_items(modality, numbers, "test", rng)
    return ClassificationRecord(f"miniature {modality}", modality, items, ids, np.arange(count), ids)


def _four_numbers(modalities: tuple[str, str], count: int, rng: np.random.Generator) -> LocalizationRecord:
    """Show four different numbers in a picture and speak one of them: where is it?"""
    rows, columns = _TILES
    numbers = np.stack([rng.choice(ALL_NUMBERS, rows * columns, replace=False) for _ in range(count)])
    tiles = draw_pictures(numbers.ravel(), "test", rng)
    height, width = tiles.shape[1:]
    pictures = tiles.reshape(count, rows, columns, height, width).swapaxes(2, 3)
    spoken = rng.integers(0, rows * columns, count)
    tops, lefts = np.divmod(spoken, columns)
    boxes = np.stack([lefts / columns, tops / rows, (lefts + 1) / columns, (tops + 1) / rows], axis=1)
    return LocalizationRecord(
        name="miniature localization",
        images=[Image.fromarray(picture) for picture in pictures.reshape(count, rows * height, columns * width)],
        sounds=draw_items("audio", numbers[np.arange(count), spoken], "test", rng),
        ids=[f"picture {position}" for position in range(count)],
        boxes=list(boxes[:, None]),
    )


def _present_or_not(modalities: tuple[str, str], count: int, rng: np.random.Generator) -> CounterfactualRecord:
    """Show a number; speak it, speak another that is not in the picture, be silent, or play noise."""
    numbers = rng.choice(ALL_NUMBERS, count, replace=False)
    pictures = draw_items("image", numbers, "test", rng)
    kinds = np.arange(count) % 8  # half of them present; of the others two in four off-screen, one silent, one noise
    sounds = draw_items("audio", np.where(kinds < 4, numbers, np.roll(numbers, 1)), "test", rng)
    for position in np.flatnonzero(kinds == 6):
        sounds[position] = _sound(np.zeros(_SILENT_SAMPLES, dtype=np.float32))
    for position in np.flatnonzero(kinds == 7):
        sounds[position] = _sound(rng.normal(0.0, 0.1, _SILENT_SAMPLES).astype(np.float32))
    ids = [f"{position:03d}" for position in range(count)]
    return CounterfactualRecord("miniature counterfactual", pictures, sounds, ids, kinds < 4)


_DRAW: Mapping[str, Callable[[tuple[str, str], int, np.random.Generator], Record]] = {
    "retrieval": _pairs,
    "retention": _pairs,
    "classification": _classes,
    "localization": _four_numbers,
    "counterfactual": _present_or_not,
}

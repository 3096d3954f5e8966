"""The items of the demonstration, drawn from the miniature world: unpaired memories, and a test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.data.numbers import (
    ALL_NUMBERS,
    SAMPLE_RATE_HZ,
    SEEN_NUMBERS,
    Split,
    class_texts,
    draw_pictures,
    sample_point_clouds,
    speak_sounds,
    write_texts,
)

MODALITIES = ("text", "image", "audio", "point_cloud")


@dataclass(frozen=True)
class Items:
    """Items of one modality.

    Attributes:
        numbers: `(n,)` which number each item shows; used by the tests and the paired oracle only, never to connect.
        inputs: `n` inputs for an encoder.
    """

    numbers: NDArray[np.int64]
    inputs: Sequence[Any]


@dataclass(frozen=True)
class World:
    """Everything the demonstration embeds.

    Attributes:
        memory: by modality; training handwriting and voices, seen numbers only, each modality in an order of its own.
        test: by modality; test handwriting and voices, each of the 1000 numbers once, in order.
        prompts: the phrasings of each number in order, `1000` lists, for classification by text.
    """

    memory: dict[str, Items]
    test: dict[str, Items]
    prompts: list[list[str]]


def draw_world(seed: int, per_number: int) -> World:
    """Draw the memories (so many items per seen number and modality) and the test set."""
    memory: dict[str, Items] = {}
    test: dict[str, Items] = {}
    for position, modality in enumerate(MODALITIES):
        rng = np.random.default_rng([seed, position, 0])
        memory[modality] = _items(modality, rng.permutation(np.repeat(SEEN_NUMBERS, per_number)), "train", rng)
        test[modality] = _items(modality, ALL_NUMBERS, "test", np.random.default_rng([seed, position, 1]))
    return World(memory, test, [class_texts(number) for number in ALL_NUMBERS.tolist()])


def _items(modality: str, numbers: NDArray[np.int64], split: Split, rng: np.random.Generator) -> Items:
    return Items(numbers, _DRAW[modality](numbers, split, rng))


def _sounds(numbers: NDArray[np.int64], split: Split, rng: np.random.Generator) -> list[dict[str, Any]]:
    return [{"array": sound, "sampling_rate": SAMPLE_RATE_HZ} for sound in speak_sounds(numbers, split, rng)]


_DRAW: dict[str, Callable[[NDArray[np.int64], Split, np.random.Generator], Sequence[Any]]] = {
    "text": lambda numbers, split, rng: write_texts(numbers, rng),
    "image": lambda numbers, split, rng: list(draw_pictures(numbers, split, rng)),
    "audio": _sounds,
    "point_cloud": lambda numbers, split, rng: list(sample_point_clouds(numbers, split, rng)),
}

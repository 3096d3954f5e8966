"""The items of the demonstration, drawn from the miniature world and embedded: unpaired memories, and a test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.data.numbers import ALL_NUMBERS, SEEN_NUMBERS, class_texts
from cmcr.evaluation.miniature import draw_items
from cmcr.evaluation.tasks.classification import unit_means
from cmcr.evaluation.tasks.embedding import Embedded
from cmcr.memories.memories import Memories
from cmcr.spaces.registry import space

MODALITIES = ("text", "image", "audio", "point_cloud")
_BATCH = 500


@dataclass(frozen=True)
class Case:
    """Two spaces to connect: what they share, and which modalities meet for the first time.

    Attributes:
        name: for folders and messages.
        spaces: names of the left and the right space.
        overlap: the shared modality.
        outer: the modality of the left and of the right space that were never seen together.
    """

    name: str
    spaces: tuple[str, str]
    overlap: str
    outer: tuple[str, str]


CASES = (
    Case("audio-image", ("mini-clip", "mini-clap"), "text", ("image", "audio")),
    Case("3d-text", ("mini-clip", "mini-ulip"), "image", ("text", "point_cloud")),
)


@dataclass(frozen=True)
class World:
    """Everything the demonstration embeds, by modality.

    Attributes:
        numbers: `(n,)` which number each memory item shows; used by the paired oracle only, never to connect.
        memory: `n` inputs for an encoder; training handwriting and voices, seen numbers only, each modality in an order of
            its own.
        test: test handwriting and voices, each of the 1000 numbers once, in order.
    """

    numbers: dict[str, NDArray[np.int64]]
    memory: dict[str, list[Any]]
    test: dict[str, list[Any]]


def draw_world(seed: int, per_number: int) -> World:
    """Draw the memories (so many items per seen number and modality) and the test set."""
    world = World({}, {}, {})
    for position, modality in enumerate(MODALITIES):
        rng = np.random.default_rng([seed, position, 0])
        world.numbers[modality] = rng.permutation(np.repeat(SEEN_NUMBERS, per_number))
        world.memory[modality] = draw_items(modality, world.numbers[modality], "train", rng)
        rng = np.random.default_rng([seed, position, 1])
        world.test[modality] = draw_items(modality, ALL_NUMBERS, "test", rng)
    return world


@dataclass(frozen=True)
class EmbeddedCase:
    """A case with its embeddings; of two spaces the left one comes first.

    Attributes:
        case: what is connected.
        memories: overlap and outer memory of each space, as `cmcr.connect` takes them.
        numbers: see `World`.
        outer: of each space the 1000 test items of its outer modality; texts are the means of all phrasings of a number.
        own: of each space the test items of the overlap and of its outer modality, one item each.
    """

    case: Case
    memories: list[Memories]
    numbers: dict[str, NDArray[np.int64]]
    outer: list[Embedded]
    own: list[tuple[Embedded, Embedded]]


def embed_world(world: World, progress: Callable[[float], None]) -> list[EmbeddedCase]:
    """Embed the world with every encoder that the cases need, each item once."""
    wanted = list(dict.fromkeys((name, m) for case in CASES for name in case.spaces for m in space(name).widths))
    memory: dict[tuple[str, str], NDArray[np.float32]] = {}
    test: dict[tuple[str, str], Embedded] = {}
    for done, (name, modality) in enumerate(wanted, start=1):
        memory[name, modality] = _encode(name, modality, world.memory[modality])
        test[name, modality] = Embedded.whole(name, modality, _encode(name, modality, world.test[modality]))
        progress(done / (len(wanted) + 1))
    phrasings = [class_texts(number) for number in ALL_NUMBERS.tolist()]
    rows = _encode("mini-clip", "text", [text for texts in phrasings for text in texts])
    classes = Embedded.whole("mini-clip", "text", unit_means(rows, np.array([len(texts) for texts in phrasings])))
    progress(1.0)
    cases = []
    for case in CASES:
        outer = list(zip(case.spaces, case.outer, strict=True))
        cases.append(
            EmbeddedCase(
                case,
                [Memories(space(name), **{m: memory[name, m] for m in (case.overlap, own)}) for name, own in outer],
                world.numbers,
                [classes if modality == "text" else test[name, modality] for name, modality in outer],
                [(test[name, case.overlap], test[name, modality]) for name, modality in outer],
            )
        )
    return cases


def _encode(name: str, modality: str, inputs: Sequence[Any]) -> NDArray[np.float32]:
    return space(name).encode(inputs, modality, batch_size=_BATCH, show_progress_bar=False)

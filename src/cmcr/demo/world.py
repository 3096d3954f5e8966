"""The items of the demonstration, drawn from the miniature world and embedded: unpaired memories, and a test set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from cmcr.data.numbers import ALL_NUMBERS, SEEN_NUMBERS, class_texts
from cmcr.evaluation.miniature import draw_items
from cmcr.evaluation.tasks.classification import unit_means
from cmcr.evaluation.tasks.embedding import Embedded
from cmcr.memories.memories import Memories
from cmcr.spaces.registry import space

MODALITIES = {"text": "text", "image": "picture", "audio": "sound", "point_cloud": "3D"}
"""Every modality of the world, and the word for one of its items."""

WIDE_GAP = 1.0
"""How far the modalities of large contrastive spaces lie apart: 0.9 to 1.1; those of the miniature spaces 0.1 to 0.3."""

_BATCH = 500

Rows = NDArray[np.floating]


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


def gap_of(first: Rows, second: Rows) -> float:
    """Measure a modality gap: the distance of the means of two modalities' unit rows."""
    return float(np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)))


def with_gap(data: EmbeddedCase, gap: float) -> EmbeddedCase:
    """Move the two modalities of each space apart, until its memories have a modality gap of `gap`.

    Every row takes the same step as all of its modality and is made a unit row again, so that each space finds its own as
    before. An embedded text that is a mean of phrasings is moved like any other row.

    Args:
        data: a case.
        gap: at least the space's own, below 2.
    """
    memories, outer, own = [], [], []
    for given, items, pair in zip(data.memories, data.outer, data.own, strict=True):
        rows = [given.loaded(modality).numpy() for modality in (data.case.overlap, items.modality)]
        step = gap_step(rows[0], rows[1], gap)
        moved = {data.case.overlap: _moved(rows[0], step), items.modality: _moved(rows[1], -step)}
        memories.append(Memories(given.space, **moved))
        outer.append(replace(items, rows=_moved(items.rows, -step)))
        own.append(
            (replace(pair[0], rows=_moved(pair[0].rows, step)), replace(pair[1], rows=_moved(pair[1].rows, -step)))
        )
    return replace(data, memories=memories, outer=outer, own=own)


def gap_step(first: Rows, second: Rows, gap: float) -> NDArray[np.float64]:
    """Find the step `(D,)` to add to the unit rows of one modality, and to subtract from those of the other, for a gap.

    It goes along the axis on which the rows of both vary least around their means, so that it is orthogonal to what they
    show: a cosine c of the two modalities becomes nearly ``(c - h^2) / (1 + h^2)``, h the length of the step.
    """
    means = first.mean(axis=0, dtype=np.float64), second.mean(axis=0, dtype=np.float64)
    around = np.concatenate([first - means[0], second - means[1]])
    axis = np.linalg.eigh(around.T @ around)[1][:, 0]
    axis = axis if (means[0] - means[1]) @ axis >= 0 else -axis
    length = brentq(lambda h: gap_of(_moved(first, h * axis), _moved(second, -h * axis)) - gap, 0.0, 10.0)
    return length * axis


def _moved(rows: Rows, step: NDArray[np.float64]) -> NDArray[np.float32]:
    moved = rows + step
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def _encode(name: str, modality: str, inputs: Sequence[Any]) -> NDArray[np.float32]:
    return space(name).encode(inputs, modality, batch_size=_BATCH, show_progress_bar=False)

"""The two connections of the demonstration, and the embeddings each of them works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmcr.demo.world import World
from cmcr.memories.memories import Memories
from cmcr.spaces.protocol import Space
from cmcr.spaces.registry import space

Rows = NDArray[np.float32]

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
class SideData:
    """The embeddings of one space in a case.

    Attributes:
        space: the space.
        memories: overlap and outer memory, as `cmcr.connect` takes them.
        outer_numbers: `(N,)` the number each row of the outer memory shows (for the paired oracle only).
        test_overlap: `(1000, D)` test items of the overlap, row i is number i.
        test_outer: `(1000, D)` test items of the outer modality; texts are the prompt ensembles of the classes.
        test_outer_single: `(1000, D)` the same with one item each, for the space's own retrieval.
    """

    space: Space
    memories: Memories
    outer_numbers: NDArray[np.int64]
    test_overlap: Rows
    test_outer: Rows
    test_outer_single: Rows


@dataclass(frozen=True)
class CaseData:
    """A case with its embeddings.

    Attributes:
        case: what is connected.
        sides: left and right.
        overlap_numbers: `(n,)` the number each overlap item shows (for the paired oracle only).
    """

    case: Case
    sides: tuple[SideData, SideData]
    overlap_numbers: NDArray[np.int64]


def embed_cases(world: World, progress: Callable[[float], None]) -> list[CaseData]:
    """Embed the world with every encoder that the cases need, each only once."""
    wanted = list(dict.fromkeys((name, m) for case in CASES for name in case.spaces for m in space(name).widths))
    memory: dict[tuple[str, str], Rows] = {}
    test: dict[tuple[str, str], Rows] = {}
    for done, (name, modality) in enumerate(wanted, start=1):
        memory[name, modality] = _encode(name, modality, world.memory[modality].inputs)
        test[name, modality] = _encode(name, modality, world.test[modality].inputs)
        progress(done / (len(wanted) + 1))
    ensembles = _prompt_ensembles("mini-clip", world.prompts)
    progress(1.0)
    return [_case_data(case, world, memory, test, ensembles) for case in CASES]


def _case_data(
    case: Case,
    world: World,
    memory: dict[tuple[str, str], Rows],
    test: dict[tuple[str, str], Rows],
    ensembles: Rows,
) -> CaseData:
    sides = []
    for name, outer in zip(case.spaces, case.outer, strict=True):
        arrays = {case.overlap: memory[name, case.overlap], outer: memory[name, outer]}
        sides.append(
            SideData(
                space=space(name),
                memories=Memories(space(name), **arrays),
                outer_numbers=world.memory[outer].numbers,
                test_overlap=test[name, case.overlap],
                test_outer=ensembles if outer == "text" else test[name, outer],
                test_outer_single=test[name, outer],
            )
        )
    return CaseData(case, (sides[0], sides[1]), world.memory[case.overlap].numbers)


def _encode(name: str, modality: str, inputs: object) -> Rows:
    rows: Rows = space(name).encode(inputs, modality, batch_size=_BATCH, show_progress_bar=False)  # type: ignore[arg-type]
    return rows


def _prompt_ensembles(name: str, prompts: list[list[str]]) -> Rows:
    """One unit row per class: the mean of the embeddings of its phrasings."""
    flat = _encode(name, "text", [text for texts in prompts for text in texts])
    means = flat.reshape(len(prompts), -1, flat.shape[1]).mean(axis=1)
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), dtype=np.float32)

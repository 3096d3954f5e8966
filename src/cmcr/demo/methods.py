"""Ways to compare the two outer modalities of a case: the connection, and what stands beside it.

Each gives both sets of test items as rows of one shared space, whose products rank them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cmcr.connection.connection import Connection
from cmcr.connection.settings import Settings
from cmcr.connection.training import Side, train
from cmcr.demo.cases import CaseData, SideData
from cmcr.evaluation.baselines import CentredMap, overlap_posterior


class Comparable(NamedTuple):
    """The test items of both outer modalities in a shared space; row i is number i.

    Attributes:
        left: `(1000, K)` items of the left space's outer modality.
        right: `(1000, K)` items of the right space's outer modality.
    """

    left: Tensor
    right: Tensor


def connected(data: CaseData, connection: Connection) -> Comparable:
    """Compare through a connection."""
    left, right = data.sides
    return Comparable(
        connection.project(torch.from_numpy(left.test_outer), left.space.name),
        connection.project(torch.from_numpy(right.test_outer), right.space.name),
    )


def centred(data: CaseData, fit: Callable[[Tensor, Tensor], CentredMap]) -> Comparable:
    """Compare through a closed form between the centred embeddings of the overlap."""
    left, right = data.sides
    overlap, outer = data.case.overlap, data.case.outer
    linear = fit(left.memories.loaded(overlap), right.memories.loaded(overlap))
    return Comparable(
        linear.left(left.test_outer, left.memories.loaded(outer[0]).mean(dim=0)),
        linear.right(right.test_outer, right.memories.loaded(outer[1]).mean(dim=0)),
    )


def posterior(data: CaseData) -> Comparable:
    """Compare without training, through the posterior over the overlap items."""
    left, right = data.sides
    overlap = data.case.overlap
    return Comparable(
        overlap_posterior(left.test_outer, left.memories.loaded(overlap)),
        overlap_posterior(right.test_outer, right.memories.loaded(overlap)),
    )


def paired_oracle(
    data: CaseData, settings: Settings, seed: int, progress: Callable[[float], None] | None = None
) -> Comparable:
    """Train the same projectors on true pairs, which nobody without pairs can do: what is left to gain.

    Every overlap item gets, instead of its semantically consistent counterparts, a true picture, sound, text or cloud of
    the same number in each space. All settings are those of the connection it stands beside.
    """
    rng = np.random.default_rng(seed)
    sides = [_paired(side, data, outer, rng) for side, outer in zip(data.sides, data.case.outer, strict=True)]
    trained = train(sides[0], sides[1], settings, seed=seed, progress=progress)
    with torch.no_grad():
        return Comparable(
            trained.left(torch.from_numpy(data.sides[0].test_outer)),
            trained.right(torch.from_numpy(data.sides[1].test_outer)),
        )


def _paired(side: SideData, data: CaseData, outer: str, rng: np.random.Generator) -> Side:
    """Give each overlap item a random outer item of the same number."""
    order = np.argsort(side.outer_numbers, kind="stable")
    ordered = side.outer_numbers[order]
    first = np.searchsorted(ordered, data.overlap_numbers, side="left")
    past = np.searchsorted(ordered, data.overlap_numbers, side="right")
    chosen = order[rng.integers(first, past)]
    memories = side.memories
    return Side(memories.loaded(data.case.overlap), memories.loaded(outer)[torch.from_numpy(chosen)])

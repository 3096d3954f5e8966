"""The figures of one case: how well each method ranks, and what connecting cost each space."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.arrays import Array
from cmcr.connection.connection import Connection
from cmcr.data.numbers import ALL_NUMBERS, UNSEEN_NUMBERS
from cmcr.demo.cases import CaseData, SideData
from cmcr.demo.methods import Comparable
from cmcr.evaluation.geometry import modality_gap
from cmcr.evaluation.intervals import bootstrap_interval
from cmcr.evaluation.metrics import answer_ranks, hit_rate

TOP = (1, 5, 10)


def tasks_of(data: CaseData) -> tuple[str, str]:
    """Name the two directions of a case: from the right space to the left, and back."""
    left, right = data.case.outer
    return f"{right}_to_{left}", f"{left}_to_{right}"


def figures_of(data: CaseData, compared: Comparable) -> dict[str, Any]:
    """Measure one method in both directions.

    Returns:
        Metrics by key, in percent: `audio_to_image/R@1`, its 95 % bootstrap interval `audio_to_image/R@1/interval`, and
        `audio_to_image/unseen/R@1` for queries of the numbers that no training saw, ranked among all 1000.
    """
    there, back = tasks_of(data)
    return {
        **_direction(there, answer_ranks(compared.right, compared.left, ALL_NUMBERS)),
        **_direction(back, answer_ranks(compared.left, compared.right, ALL_NUMBERS)),
    }


def chance_figures(data: CaseData) -> dict[str, Any]:
    """What guessing would give: k in 1000."""
    figures: dict[str, Any] = {}
    for task in tasks_of(data):
        for k in TOP:
            share = 100.0 * k / len(ALL_NUMBERS)
            figures |= {f"{task}/R@{k}": share, f"{task}/R@{k}/interval": [share, share], f"{task}/unseen/R@{k}": share}
    return figures


def retention_of(data: CaseData, connection: Connection) -> dict[str, Any]:
    """Measure each space on its own pair of modalities, before and after its projector.

    Returns:
        By space: `before`, `after` (R@1 in percent, the mean of both directions over 1000 test items), `kept` (their
        ratio), `gap_before` and `gap_after` (distance between the means of the two modalities).
    """
    return {side.space.name: _retention(side, connection) for side in data.sides}


def _retention(side: SideData, connection: Connection) -> dict[str, float]:
    own = side.test_overlap, side.test_outer_single
    projected = [connection.project(rows, side.space.name) for rows in own]
    before, after = _mutual_r1(*own), _mutual_r1(projected[0], projected[1])
    return {
        "before": before,
        "after": after,
        "kept": after / before,
        "gap_before": modality_gap(*own),
        "gap_after": modality_gap(projected[0], projected[1]),
    }


def _mutual_r1(first: Array, second: Array) -> float:
    there = hit_rate(answer_ranks(first, second, ALL_NUMBERS), 1)
    back = hit_rate(answer_ranks(second, first, ALL_NUMBERS), 1)
    return 100.0 * (there + back) / 2


def _direction(task: str, ranks: NDArray[np.int64]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for k in TOP:
        figures[f"{task}/R@{k}"] = 100.0 * hit_rate(ranks, k)
        figures[f"{task}/R@{k}/interval"] = [100.0 * bound for bound in bootstrap_interval(ranks <= k)]
        figures[f"{task}/unseen/R@{k}"] = 100.0 * hit_rate(ranks[UNSEEN_NUMBERS], k)
    return figures

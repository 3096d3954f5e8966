"""The paper's tasks on small sets of the miniature world, through the harness that measures published data sets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cmcr.connection.connection import Connection
from cmcr.evaluation.evaluate import evaluate_miniature
from cmcr.evaluation.miniature import MINI_RECORDS
from cmcr.evaluation.tasks.embedding import NotConnectedError
from cmcr.evaluation.tasks.grounded import PreparedGrounded
from cmcr.evaluation.tasks.heatmaps import write_heatmaps
from cmcr.evaluation.tasks.ways import ThroughConnection

_ITEMS = {"localization": 32, "counterfactual": 160}
_OTHER_ITEMS = 120
_SHOWN = 3  # heat maps in the report

KEYS = (
    ("mean/R@1", "R@1, mean of both directions"),
    ("point_cloud/top-1", "top-1"),
    ("image/top-1", "top-1"),
    ("audio/top-1", "top-1"),
    ("proposals/cIoU@0.5", "cIoU@0.5, best box"),
    ("dense/cIoU@0.5", "cIoU@0.5, map of patches"),
    ("silence/AP", "AP, sound or silence?"),
    ("other_sound/AP", "AP, its sound or another?"),
    ("present/AP", "AP, is it in the picture?"),
)
"""What the report shows of each run, and how it calls it."""


def measure_tasks(
    connection: Connection, seed: int, progress: Callable[[float], None]
) -> tuple[dict[str, Any], list[bytes]]:
    """Measure a connection on every task that its modalities allow.

    Args:
        connection: with its encoders.
        seed: of the items and the intervals.
        progress: called with the share done.

    Returns:
        by run, its figures by way and key; and heat maps of localization as PNG files.
    """
    measured: dict[str, Any] = {}
    heatmaps: list[bytes] = []
    for done, run in enumerate(MINI_RECORDS, start=1):
        items = _ITEMS.get(run.split("/", 1)[0], _OTHER_ITEMS)
        try:
            evaluation = evaluate_miniature(connection, run, seed=seed, items=items)
        except NotConnectedError:
            continue  # a task of other modalities
        measured[run] = {"items": items, "figures": evaluation.result["figures"]}
        if isinstance(evaluation.prepared, PreparedGrounded):
            heatmaps += _drawn(evaluation.prepared, connection)
        progress(done / len(MINI_RECORDS))
    return measured, heatmaps


def _drawn(prepared: PreparedGrounded, connection: Connection) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        files = write_heatmaps(prepared, ThroughConnection(connection), Path(folder), _SHOWN)
        return [file.read_bytes() for file in files]

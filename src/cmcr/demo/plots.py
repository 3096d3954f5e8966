"""The two pictures of the report: where the modalities lie, and how the loss fell."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.demo.cases import CaseData
from cmcr.errors import missing_dependency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"text": "#6b7280", "image": "#2563eb", "audio": "#d97706", "point_cloud": "#059669"}
_MARKERS = ("o", "x")  # of the left and the right space's overlap in the common space
_SHOWN = 250  # points per modality


def gap_picture(data: CaseData, connection: Connection) -> str:
    """Draw each space before and the common space after, projected on two principal components: a PNG data URI."""
    left, right = data.sides
    before = [
        {(data.case.overlap, 0): side.test_overlap, (outer, 0): side.test_outer_single}
        for side, outer in zip(data.sides, data.case.outer, strict=True)
    ]
    after = {
        (data.case.overlap, 0): connection.project(left.test_overlap, left.space.name),
        (data.case.overlap, 1): connection.project(right.test_overlap, right.space.name),
        (data.case.outer[0], 0): connection.project(left.test_outer_single, left.space.name),
        (data.case.outer[1], 1): connection.project(right.test_outer_single, right.space.name),
    }
    figure = _figure(width=11.0, height=3.7)
    axes = figure.subplots(1, 3)
    for axis, sets, title in zip(
        axes,
        (before[0], before[1], after),
        (f"{left.space.name}, before", f"{right.space.name}, before", "common space, after"),
        strict=True,
    ):
        _scatter(axis, sets)
        axis.set_title(title, fontsize=11)
    axes[2].legend(
        *axes[2].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9
    )
    return _png(figure)


def loss_picture(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Draw the loss terms of every step, one panel a connection: a PNG data URI."""
    figure = _figure(width=11.0, height=3.2)
    axes = figure.subplots(1, len(histories), squeeze=False)[0]
    for axis, (name, history) in zip(axes, histories.items(), strict=True):
        for term, label, colour in (
            ("ttc", "$L_{ttc}$", "#6b7280"),
            ("avc", "$L_{avc}$", "#2563eb"),
            ("intra", "$L_{intra}$", "#d97706"),
            ("total", "total", "#111827"),
        ):
            axis.plot(_smooth(history[term]), label=label, color=colour, linewidth=1.4)
        axis.set_title(name, fontsize=11)
        axis.set_xlabel("training step")
        axis.set_yscale("log")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("loss")
    axes[-1].legend(frameon=False, fontsize=9)
    return _png(figure)


def _scatter(axis: Axes, sets: Mapping[tuple[str, int], NDArray[np.floating]]) -> None:
    stacked = np.concatenate([rows[:: len(rows) // _SHOWN] for rows in sets.values()])
    centred = torch.from_numpy(stacked - stacked.mean(axis=0)).double()
    _, _, components = torch.linalg.svd(centred, full_matrices=False)
    plane = (centred @ components[:2].T).numpy()
    start = 0
    for (modality, side), rows in sets.items():
        count = len(rows[:: len(rows) // _SHOWN])
        part = plane[start : start + count]
        start += count
        label = modality.replace("_", " ") + (" (right space)" if side and (modality, 0) in sets else "")
        axis.scatter(
            part[:, 0],
            part[:, 1],
            s=12,
            alpha=0.6,
            c=_COLOURS[modality],
            marker=_MARKERS[side],
            linewidths=0.8,
            label=label,
        )
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_aspect("equal", adjustable="datalim")


def _smooth(values: Sequence[float], window: int = 9) -> NDArray[np.float64]:
    padded = np.pad(np.asarray(values, dtype=np.float64), window // 2, mode="edge")
    return np.convolve(padded, np.ones(window) / window, mode="valid")


def figure_class() -> type[Figure]:
    """Import matplotlib.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", extra="demo", purpose="the plots of the report") from error
    return Figure


def _figure(width: float, height: float) -> Figure:
    return figure_class()(figsize=(width, height), dpi=120, layout="constrained")


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

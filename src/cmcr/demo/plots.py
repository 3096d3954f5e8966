"""The plots of the report: where the modalities lie, and how the loss fell."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.demo.world import EmbeddedCase
from cmcr.evaluation.tasks.heatmaps import figure_class

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"text": "#6b7280", "image": "#2563eb", "audio": "#d97706", "point_cloud": "#059669"}
_TERMS = (
    ("ttc", "$L_{ttc}$", "#6b7280"),
    ("avc", "$L_{avc}$", "#2563eb"),
    ("intra", "$L_{intra}$", "#d97706"),
    ("total", "total", "#111827"),
)
_SHOWN = 250  # points a modality
_SMOOTHED = 9  # steps


def gap_picture(data: EmbeddedCase, connection: Connection) -> str:
    """Draw each space before and the common space after, projected on two principal components: a PNG data URI."""
    figure = _figure(width=11.0, height=3.7)
    left, right, common = figure.subplots(1, 3)
    after = {}
    for axes, own, marker, side in ((left, data.own[0], "o", ""), (right, data.own[1], "x", " (right space)")):
        _scatter(axes, {items.modality: (items.modality, "o", items.rows) for items in own})
        axes.set_title(f"{own[0].space}, before", fontsize=11)
        for items in own:
            label = items.modality + (side if items.modality == data.case.overlap else "")
            width = connection.projectors[items.space].width  # without what keeps the spaces apart
            after[label] = items.modality, marker, connection.common(items.rows, items.space)[:, :width]
    overlap = data.case.overlap
    first = [overlap, f"{overlap} (right space)"]  # drawn first, so that what is being connected lies above
    _scatter(common, {label: after[label] for label in [*first, *(label for label in after if label not in first)]})
    common.set_title("common space, after", fontsize=11)
    common.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
    return png(figure)


def loss_picture(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Draw the loss terms of every step, one panel a connection: a PNG data URI."""
    figure = _figure(width=11.0, height=3.2)
    panels = figure.subplots(1, len(histories), squeeze=False)[0]
    for axes, (name, history) in zip(panels, histories.items(), strict=True):
        for term, label, colour in _TERMS:
            padded = np.pad(np.asarray(history[term], dtype=np.float64), _SMOOTHED // 2, mode="edge")
            smooth = np.convolve(padded, np.full(_SMOOTHED, 1 / _SMOOTHED), mode="valid")
            axes.plot(smooth, label=label, color=colour, linewidth=1.4)
        axes.set_title(name, fontsize=11)
        axes.set_xlabel("training step")
        axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("loss")
    panels[-1].legend(frameon=False, fontsize=9)
    return png(figure)


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Put a file into an address, so that the page needs nothing beside it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _scatter(axes: Axes, sets: Mapping[str, tuple[str, str, NDArray[np.floating]]]) -> None:
    """Scatter (modality, marker, rows) by label on the first two principal components of all of them."""
    shown = {label: rows[:: max(1, len(rows) // _SHOWN)] for label, (_, _, rows) in sets.items()}
    stacked = np.concatenate(list(shown.values())).astype(np.float64)
    mean = stacked.mean(axis=0)
    components = np.linalg.svd(stacked - mean, full_matrices=False)[2][:2]
    for label, (modality, marker, _) in sets.items():
        x, y = components @ (shown[label] - mean).T
        words = label.replace("_", " ")
        axes.scatter(x, y, s=12, alpha=0.6, c=_COLOURS[modality], marker=marker, linewidths=0.8, label=words)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")


def _figure(width: float, height: float) -> Figure:
    return figure_class()(figsize=(width, height), dpi=120, layout="constrained")


def png(figure: Figure) -> str:
    """Make a PNG data URI of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return data_uri(buffer.getvalue())

"""The plots of the report: where the modalities lie, and how the loss fell. Each is small enough for a phone."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.demo.world import MODALITIES, Case, EmbeddedCase
from cmcr.evaluation.tasks.embedding import Embedded
from cmcr.evaluation.tasks.heatmaps import figure_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"text": "#6b7280", "image": "#2563eb", "audio": "#d97706", "point_cloud": "#059669"}
_TERMS = (
    ("ttc", "{0}–{0}, $L_{{ttc}}$", "#6b7280"),
    ("avc", "{1}–{2}, $L_{{avc}}$", "#2563eb"),
    ("intra", "within a space, $L_{{intra}}$", "#d97706"),
    ("total", "total", "#111827"),
)
"""Each term of the loss, its label for the words of the overlap and of both outer modalities, and its colour."""

_SHOWN = 250  # points a modality
_SMOOTHED = 9  # steps


def gap_pictures(data: EmbeddedCase, connection: Connection) -> list[str]:
    """Draw each space before and the common space after, projected on two principal components: PNG data URIs."""
    drawn, after = [], []
    for own, marker in zip(data.own, "ox", strict=True):
        drawn.append(_scatter(f"{own[0].space}, before", [(items, "o", items.rows) for items in own]))
        width = connection.projectors[own[0].space].width  # without what keeps the spaces apart
        after += [(items, marker, connection.common(items.rows, items.space)[:, :width]) for items in own]
    after.sort(key=lambda each: each[0].modality != data.case.overlap)  # what is being connected lies above
    return [*drawn, _scatter("common space, after", after)]


def loss_picture(title: str, case: Case, history: Mapping[str, Sequence[float]]) -> str:
    """Draw the terms of the loss over the steps, those that the method has: a PNG data URI."""
    figure = _figure()
    axes = figure.subplots()
    words = [MODALITIES[modality] for modality in (case.overlap, *case.outer)]
    for term, label, colour in _TERMS:
        if term in history:
            padded = np.pad(np.asarray(history[term], dtype=np.float64), _SMOOTHED // 2, mode="edge")
            smooth = np.convolve(padded, np.full(_SMOOTHED, 1 / _SMOOTHED), mode="valid")
            axes.plot(smooth, label=label.format(*words), color=colour, linewidth=1.4)
    axes.set(title=title, xlabel="training step", ylabel="loss", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return png(figure)


def data_uri(content: bytes, kind: str = "image/png") -> str:
    """Put a file into an address, so that the page needs nothing beside it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png(figure: Figure) -> str:
    """Make a PNG data URI of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return data_uri(buffer.getvalue())


def _scatter(title: str, sets: Sequence[tuple[Embedded, str, NDArray[np.floating]]]) -> str:
    """Scatter items, each set by its marker and rows, on the first two principal components of all of them."""
    shown = [rows[:: max(1, len(rows) // _SHOWN)] for _, _, rows in sets]
    stacked = np.concatenate(shown).astype(np.float64)
    mean = stacked.mean(axis=0)
    components = np.linalg.svd(stacked - mean, full_matrices=False)[2][:2]
    figure = _figure()
    axes = figure.subplots()
    for (items, marker, _), rows in zip(sets, shown, strict=True):
        label, colour = f"{MODALITIES[items.modality]}, {items.space}", _COLOURS[items.modality]
        x, y = components @ (rows - mean).T
        axes.scatter(x, y, s=12, alpha=0.6, c=colour, marker=marker, linewidths=0.8, label=label)
    axes.set(title=title, xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return png(figure)


def _figure() -> Figure:
    return figure_class()(figsize=(4.2, 4.4), dpi=120, layout="constrained")

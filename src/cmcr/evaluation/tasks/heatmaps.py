"""Pictures to look at: where a method hears the sound, drawn over the picture, beside the boxes of people and the answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmcr.data.images import read_image, to_rgb
from cmcr.errors import WriteError, missing_dependency
from cmcr.evaluation.baselines import Method
from cmcr.evaluation.datasets.records import LocalizationRecord
from cmcr.evaluation.tasks.localization import Answer, PreparedLocalization

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL = 4.2  # inches, the width of each of the two pictures
_DRAWN, _ANSWERED = "white", "#ff5a1e"


def figure_class() -> type[Figure]:
    """Import matplotlib.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_dependency("matplotlib", extra="demo", purpose="heat maps and plots") from error
    return Figure


def write_heatmaps(prepared: PreparedLocalization, method: Method, folder: Path, limit: int = 20) -> list[Path]:
    """Write one PNG for each of some items, spread evenly over all; see `draw_heatmap`.

    Args:
        prepared: items of a localisation task.
        method: whose answers to draw.
        folder: made if need be; files of the same name are replaced.
        limit: the most items.

    Returns:
        the files, in the order of the items.

    Raises:
        SampleError: a picture can no longer be read.
        WriteError: a file cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    written = []
    for answer in prepared.answers(method, limit):
        name = re.sub(r"[^\w.-]+", "_", prepared.record.ids[answer.item])[-80:]
        path = folder / f"{answer.item:05d}-{name}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            draw_heatmap(prepared.record, answer).savefig(path)
        except OSError as error:
            raise WriteError(f"{path}: could not be written ({error}).") from error
        written.append(path)
    return written


def draw_heatmap(record: LocalizationRecord, answer: Answer) -> Figure:
    """Draw one item: its picture, and beside it the map of cosines over the grey picture.

    Both show the boxes that people drew (white) and the box answered (orange, dashed). The map runs from its own lowest
    cosine (dark blue) to its own highest (yellow).

    Raises:
        SampleError: the picture can no longer be read.
        MissingDependencyError: matplotlib is not installed.
    """
    new_figure = figure_class()
    from matplotlib.patheffects import withStroke

    picture = to_rgb(read_image(record.images[answer.item]))
    height = np.clip(_PANEL * picture.height / picture.width, 1.0, 2 * _PANEL)
    figure = new_figure(figsize=(2 * _PANEL + 1.0, height + 0.9), dpi=110, layout="constrained")
    plain, overlaid = figure.subplots(1, 2)
    extent = (0, picture.width, picture.height, 0)
    plain.imshow(picture, extent=extent)
    overlaid.imshow(picture.convert("L"), cmap="gray", extent=extent)
    # Cividis rises evenly in brightness, and none of its colours differ by red and green alone.
    shown = overlaid.imshow(answer.map, cmap="cividis", alpha=0.6, extent=extent)
    figure.colorbar(shown, ax=overlaid, label="cosine", shrink=0.9)
    plain.set_title(record.ids[answer.item][-40:], fontsize=10)
    overlaid.set_title(f"cIoU: box {answer.box_iou:.2f}, map {answer.map_iou:.2f}", fontsize=10)

    def outline(box: NDArray[np.float64]) -> NDArray[np.float64]:
        left, top, right, bottom = box * [picture.width, picture.height, picture.width, picture.height]
        return np.array([[left, right, right, left, left], [top, top, bottom, bottom, top]])

    cased = {"path_effects": [withStroke(linewidth=3, foreground="black")], "clip_on": False}  # seen on any ground
    for axes in (plain, overlaid):
        for box in record.boxes[answer.item]:
            axes.plot(*outline(box), color=_DRAWN, label="true box", **cased)
        axes.plot(*outline(answer.box), color=_ANSWERED, label="box answered", linestyle="--", **cased)
        axes.axis("off")
    handles, labels = plain.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="outside lower left", ncols=2, fontsize=9, facecolor="#9ca3af")
    return figure

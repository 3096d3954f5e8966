"""Readers of the evaluation data sets, in the layouts in which their authors publish them."""

from __future__ import annotations

import os
from pathlib import Path

from cmcr.errors import ConfigError, unknown_name
from cmcr.evaluation.datasets import audio_visual, captions, classes
from cmcr.evaluation.datasets.layout import DataFolder, Layout
from cmcr.evaluation.datasets.records import Record

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for file in (audio_visual, classes, captions)
    for layout in vars(file).values()
    if isinstance(layout, Layout)
}
"""How each data set is published, by its name."""


def read_dataset(
    name: str,
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    allow_missing: bool = False,
    limit: int | None = None,
) -> Record:
    """Read a data set from a folder in the layout in which its authors publish it; nothing is downloaded or decoded.

    Args:
        name: one of `LAYOUTS`.
        folder: that holds it.
        split: one of the data set's splits; `None` takes the one of published figures.
        allow_missing: leave out items that the annotations name and whose files are missing, and count them in `left_out`.
        limit: at most so many items, evenly spaced over all, so that a list sorted by class still gives all classes.

    Returns:
        `RetrievalRecord`, `ClassificationRecord`, `LocalizationRecord` or `CounterfactualRecord`, by data set.

    Raises:
        ConfigError: an unknown name or split (the nearest is named), or a limit below 1.
        ArtefactNotFoundError: a file of the layout is missing (with the layout and who publishes it), or files of items
            (how many, and the first three).
        FormatError: annotations of another form, with the place.
        SampleError: annotations that are not UTF-8.
        ReadError: a file cannot be read.
    """
    if name not in LAYOUTS:
        raise unknown_name("data set", name, LAYOUTS)
    layout = LAYOUTS[name]
    split = layout.splits[0] if split is None else split
    if split not in layout.splits:
        raise unknown_name(f"split of {name}", split, layout.splits)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit: expected at least 1, got {limit}.")
    return layout.read(DataFolder(layout, Path(folder), split, allow_missing, limit))

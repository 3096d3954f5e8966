"""ESC-50: 2,000 five-second sounds of 50 classes (Piczak, ACM Multimedia 2015)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmcr.errors import FormatError
from cmcr.evaluation.datasets.annotations import csv_rows
from cmcr.evaluation.datasets.layout import Layout, Request
from cmcr.evaluation.datasets.records import ClassificationRecord

LAYOUT = Layout(
    name="esc-50",
    modalities=("audio", "text"),
    source="Piczak, ESC: Dataset for Environmental Sound Classification, ACM Multimedia 2015 (the repository ESC-50)",
    tree=("    meta/esc50.csv    filename, fold, target, category, esc10, src_file, take\n    audio/<filename>"),
    splits=("all", "fold1", "fold2", "fold3", "fold4", "fold5"),
)


def read_esc50(folder: Path, request: Request) -> ClassificationRecord:
    """Read sounds with their class; zero-shot figures are over `all` five folds, since nothing is trained.

    Columns as in the author's repository. Classes stand in the order of `target`, their names are `category` with spaces.
    """
    split = LAYOUT.split(request)
    path = LAYOUT.find(folder, "meta/esc50.csv")
    sounds = LAYOUT.find(folder, "audio")
    rows = list(csv_rows(path, ("filename", "fold", "target", "category")))
    classes = _classes(path, [(row["target"], row["category"]) for row in rows])
    wanted = [row for row in rows if split in ("all", f"fold{row['fold']}")]
    there = [(sounds / row["filename"]).is_file() for row in wanted]
    kept = [wanted[at] for at in LAYOUT.kept(folder, request, [f"audio/{row['filename']}" for row in wanted], there)]
    return ClassificationRecord(
        name=LAYOUT.called(split),
        modality="audio",
        items=[sounds / row["filename"] for row in kept],
        ids=[row["filename"] for row in kept],
        labels=np.array([int(row["target"]) for row in kept], dtype=np.int64),
        classes=classes,
        left_out=len(wanted) - sum(there),
    )


def _classes(path: Path, pairs: list[tuple[str, str]]) -> list[str]:
    try:
        named = {int(target): category for target, category in pairs}
    except ValueError as error:
        raise FormatError(f"{path}: expected whole numbers as target ({error}).") from error
    if sorted(named) != list(range(len(named))) or len(set(pairs)) != len(named):
        raise FormatError(
            f"{path}: expected targets 0, 1, 2, ... with one category each, got {sorted(set(pairs))[:5]}."
        )
    return [named[target].replace("_", " ") for target in sorted(named)]

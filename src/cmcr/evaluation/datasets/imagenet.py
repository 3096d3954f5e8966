"""ImageNet (ILSVRC 2012), its 50,000 validation pictures of 1,000 classes (Russakovsky et al., IJCV 2015)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmcr.errors import FormatError
from cmcr.evaluation.datasets.annotations import json_of, lines_of
from cmcr.evaluation.datasets.layout import PICTURES, Layout, Request, files_by_stem
from cmcr.evaluation.datasets.records import ClassificationRecord

LAYOUT = Layout(
    name="imagenet",
    modalities=("image", "text"),
    source="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015 (image-net.org)",
    tree=(
        "    val/<WordNet id>/<picture>.JPEG    a folder a class, 50 pictures each (also ILSVRC/Data/CLS-LOC/val/)\n"
        "    LOC_synset_mapping.txt    <WordNet id> <name>, <other names>; as Kaggle's copy of the challenge has it\n"
        '    or imagenet_class_index.json    {"0": ["<WordNet id>", "<name>"], ...}; as Keras has it'
    ),
    splits=("val",),
)

_PER_CLASS = 50


def read_imagenet(folder: Path, request: Request) -> ClassificationRecord:
    """Read the validation pictures; the order of the names' file is that of the classes.

    A name is the first that the file gives, with spaces. Some of these mean two things ("crane", "maillot"); published
    zero-shot figures use names edited by hand.
    """
    split = LAYOUT.split(request)
    names = _names(LAYOUT.find(folder, "LOC_synset_mapping.txt", "imagenet_class_index.json"))
    pictures = LAYOUT.find(folder, "val", "ILSVRC/Data/CLS-LOC/val")
    files: list[tuple[str, Path | None, int]] = []
    for label, key in enumerate(names):
        inside = _pictures(pictures / key)
        files += [(f"{key}/{path.name}", path, label) for path in inside]
        files += [(f"{key}/ ({len(inside)} of {_PER_CLASS})", None, label)] * (_PER_CLASS - len(inside))
    there = [path is not None for _, path, _ in files]
    kept = [files[row] for row in LAYOUT.kept(folder, request, [f"val/{name}" for name, _, _ in files], there)]
    return ClassificationRecord(
        name=LAYOUT.called(split),
        modality="image",
        items=[path for _, path, _ in kept],
        ids=[name for name, _, _ in kept],
        labels=np.array([label for _, _, label in kept], dtype=np.int64),
        classes=list(names.values()),
        left_out=len(files) - sum(there),
    )


def _pictures(folder: Path) -> list[Path]:
    return sorted(files_by_stem(folder, PICTURES).values()) if folder.is_dir() else []


def _names(path: Path) -> dict[str, str]:
    """Read names by WordNet id, in the order of the classes."""
    if path.suffix == ".json":
        content = json_of(path, dict)
        try:
            rows = [content[str(label)] for label in range(len(content))]
            return {key: name.replace("_", " ") for key, name in rows}
        except (KeyError, ValueError, AttributeError, TypeError) as error:
            raise FormatError(f'{path}: expected {{"0": ["<WordNet id>", "<name>"], ...}} ({error!r}).') from error
    found = {}
    for number, line in enumerate(lines_of(path), start=1):
        key, space, said = line.strip().partition(" ")
        if not (space and said.strip()):
            raise FormatError(f"{path} line {number}: expected <WordNet id> <name>, <other names>, got {line[:80]!r}.")
        found[key] = said.split(",")[0].strip()
    return found

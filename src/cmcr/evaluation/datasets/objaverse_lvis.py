"""Objaverse-LVIS: shapes from Objaverse with one of LVIS's classes each (Deitke et al., CVPR 2023)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from cmcr.data.paths import reading
from cmcr.data.point_clouds import read_point_cloud
from cmcr.errors import FormatError
from cmcr.evaluation.datasets.annotations import field, json_of, lines_of
from cmcr.evaluation.datasets.layout import Layout, Request
from cmcr.evaluation.datasets.records import ClassificationRecord

LAYOUT = Layout(
    name="objaverse-lvis",
    modalities=("point_cloud", "text"),
    source=(
        "Deitke et al., Objaverse, CVPR 2023; the list and the clouds by Liu et al., OpenShape, NeurIPS 2023 (split/lvis.json) "
        "and Zhou et al., Uni3D, ICLR 2024 (lvis_testset.txt)"
    ),
    tree=(
        "    lvis.json    [{uid, category, ...}, ...]\n"
        "    or lvis_testset.txt    class number,class,uid,path a line\n"
        "    or lvis-annotations.json    {class: [uid, ...], ...}, as the package objaverse has it\n"
        "    <uid>.npz, .npy, .ply or .glb    anywhere below the folder"
    ),
    splits=("all",),
)

_ENDINGS = (".npz", ".npy", ".ply", ".glb")


def read_objaverse_lvis(folder: Path, request: Request) -> ClassificationRecord:
    """Read the shapes with their classes, which stand in the order of the alphabet, as OpenShape has them.

    OpenShape's and Uni3D's clouds are pickled dictionaries in `.npy` files. These are never opened; the first is looked at
    here, so that the way out is said at once and not after an hour.

    Raises:
        SampleError: the first cloud is not a plain array.
    """
    split = LAYOUT.split(request)
    named = _named(LAYOUT.find(folder, "lvis.json", "lvis_testset.txt", "lvis-annotations.json"))
    files = _files_below(folder)
    ids = sorted(named)
    there = [uid in files for uid in ids]
    kept = [ids[row] for row in LAYOUT.kept(folder, request, [f"{uid}.npz" for uid in ids], there)]
    if files[kept[0]].suffix.lower() in (".npz", ".npy"):
        read_point_cloud(files[kept[0]])
    classes = sorted(set(named.values()))
    labels = {name: label for label, name in enumerate(classes)}
    return ClassificationRecord(
        name=LAYOUT.called(split),
        modality="point_cloud",
        items=[files[uid] for uid in kept],
        ids=kept,
        labels=np.array([labels[named[uid]] for uid in kept], dtype=np.int64),
        classes=[name.replace("_", " ") for name in classes],
        left_out=len(ids) - sum(there),
    )


def _named(path: Path) -> dict[str, str]:
    """Read the class of each shape by its uid; of a shape that is listed twice the first."""
    pairs: list[tuple[str, str]] = []
    if path.suffix == ".txt":
        for number, line in enumerate(lines_of(path), start=1):
            cells = line.strip().split(",")
            if len(cells) != 4:
                raise FormatError(f"{path} line {number}: expected class number,class,uid,path, got {line[:80]!r}.")
            pairs.append((cells[2], cells[1]))
    elif path.name == "lvis.json":
        for number, entry in enumerate(json_of(path, list), start=1):
            where = f"{path} entry {number}"
            pairs.append((field(entry, "uid", str, where), field(entry, "category", str, where)))
    else:
        content = json_of(path, dict)
        pairs = [(uid, name) for name in content for uid in field(content, name, list, str(path))]
    return dict(reversed(pairs))


def _files_below(folder: Path) -> dict[str, Path]:
    found: dict[str, tuple[int, Path]] = {}
    with reading(folder):
        for place, folders, names in os.walk(folder):
            folders.sort()
            for name in sorted(names):
                path = Path(place, name)
                if path.suffix.lower() in _ENDINGS and not name.startswith("."):
                    one = _ENDINGS.index(path.suffix.lower()), path
                    found[path.stem] = min(found.get(path.stem, one), one)
    return {stem: path for stem, (_, path) in found.items()}

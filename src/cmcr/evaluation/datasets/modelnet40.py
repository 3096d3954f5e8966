"""ModelNet40: shapes of 40 classes (Wu et al., CVPR 2015), as points resampled by the authors of PointNet++."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmcr.errors import FormatError
from cmcr.evaluation.datasets.annotations import lines_of
from cmcr.evaluation.datasets.layout import Layout, Request
from cmcr.evaluation.datasets.records import ClassificationRecord

LAYOUT = Layout(
    name="modelnet40",
    modalities=("point_cloud", "text"),
    source=(
        "Wu et al., 3D ShapeNets, CVPR 2015; resampled by Qi et al., PointNet++, NeurIPS 2017 (modelnet40_normal_resampled)"
    ),
    tree=(
        "    modelnet40_shape_names.txt    a class a line\n"
        "    modelnet40_test.txt, modelnet40_train.txt    <class>_<number> a line\n"
        "    <class>/<class>_<number>.txt    10,000 lines of x,y,z,normal x,normal y,normal z"
    ),
    splits=("test", "train"),
)


def read_modelnet40(folder: Path, request: Request) -> ClassificationRecord:
    """Read the clouds of a split with their classes; the names are written with spaces.

    Layout as published. y is up, which is what the encoders expect unless they are told otherwise.
    """
    split = LAYOUT.split(request)
    names_file = LAYOUT.find(folder, "modelnet40_shape_names.txt")
    names = [line.strip() for line in lines_of(names_file)]
    listed = LAYOUT.find(folder, f"modelnet40_{split}.txt")
    ids = [line.strip() for line in lines_of(listed)]
    classes = [name.rpartition("_")[0] for name in ids]
    strange = next((name for name, one in zip(ids, classes, strict=True) if one not in names), None)
    if strange is not None:
        raise FormatError(f"{listed}: {strange!r} is of no class in {names_file.name}.")
    paths = [folder / one / f"{name}.txt" for name, one in zip(ids, classes, strict=True)]
    there = [path.is_file() for path in paths]
    wanted = [f"{one}/{name}.txt" for name, one in zip(ids, classes, strict=True)]
    rows = LAYOUT.kept(folder, request, wanted, there)
    return ClassificationRecord(
        name=LAYOUT.called(split),
        modality="point_cloud",
        items=[paths[row] for row in rows],
        ids=[ids[row] for row in rows],
        labels=np.array([names.index(classes[row]) for row in rows], dtype=np.int64),
        classes=[name.replace("_", " ") for name in names],
        left_out=len(ids) - sum(there),
    )

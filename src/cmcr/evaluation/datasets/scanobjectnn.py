"""ScanObjectNN: objects cut from scans of rooms, 15 classes (Uy et al., ICCV 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.data.paths import reading
from cmcr.errors import FormatError, missing_dependency
from cmcr.evaluation.datasets.layout import Layout, Request
from cmcr.evaluation.datasets.records import ClassificationRecord

CLASSES = (
    "bag", "bin", "box", "cabinet", "chair", "desk", "display", "door", "shelf", "table", "bed", "pillow", "sink", "sofa",
    "toilet",
)  # fmt: skip
"""In the order of the labels."""

_FILES = {
    "pb-t50-rs": "main_split/test_objectdataset_augmentedrot_scale75",
    "obj-bg": "main_split/test_objectdataset",
    "obj-only": "main_split_nobg/test_objectdataset",
}

LAYOUT = Layout(
    name="scanobjectnn",
    modalities=("point_cloud", "text"),
    source="Uy et al., Revisiting Point Cloud Classification, ICCV 2019 (ScanObjectNN, h5_files)",
    tree=(
        "    main_split/test_objectdataset_augmentedrot_scale75.h5    split 'pb-t50-rs', the hardest\n"
        "    main_split/test_objectdataset.h5    split 'obj-bg'\n"
        "    main_split_nobg/test_objectdataset.h5    split 'obj-only'\n"
        "(also below h5_files/; each holds data (n, 2048, 3) and label (n,); a .npz with these two arrays is read as well)"
    ),
    splits=tuple(_FILES),
)


def read_scanobjectnn(folder: Path, request: Request) -> ClassificationRecord:
    """Read the test clouds of a variant with their classes.

    Layout as published: HDF5 files, read through h5py (the extra `h5`); a `.npz` file of the same name with the same two
    arrays needs no extra and is taken first. The clouds are read at once, 71 MB at most, and are as they are in the file: y
    is up, the axis about which the authors' code turns them.

    Raises:
        MissingDependencyError: a `.h5` file without h5py.
        FormatError: no arrays `data` and `label`, or of other shapes.
    """
    split = LAYOUT.split(request)
    stem = _FILES[split]
    path = LAYOUT.find(folder, *(f"{root}{stem}{ending}" for ending in (".npz", ".h5") for root in ("", "h5_files/")))
    points, labels = _from_npz(path) if path.suffix == ".npz" else _from_h5(path)
    _check(path, points, labels)
    rows = LAYOUT.kept(folder, request, [str(row) for row in range(len(points))], [True] * len(points))
    return ClassificationRecord(
        name=LAYOUT.called(split),
        modality="point_cloud",
        items=[np.ascontiguousarray(points[row], dtype=np.float32) for row in rows],
        ids=[f"{row:05d}" for row in rows],
        labels=labels[rows].astype(np.int64),
        classes=list(CLASSES),
    )


def _from_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        with reading(path), np.load(path, allow_pickle=False) as archive:
            return archive["data"], archive["label"]
    except (ValueError, KeyError) as error:
        raise FormatError(f"{path}: expected plain arrays 'data' and 'label' ({error}).") from error


def _from_h5(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        import h5py
    except ImportError as error:
        raise missing_dependency(
            "h5py", extra="h5", purpose=f"HDF5 files ({path}); a .npz file with the same arrays needs no extra"
        ) from error
    try:
        with reading(path), h5py.File(path, "r") as file:
            return np.asarray(file["data"]), np.asarray(file["label"])
    except KeyError as error:
        raise FormatError(f"{path}: expected the datasets 'data' and 'label' ({error}).") from error


def _check(path: Path, points: NDArray[Any], labels: NDArray[Any]) -> None:
    fits = points.ndim == 3 and points.shape[2] == 3 and labels.shape == points.shape[:1] and len(labels) > 0
    if not (fits and points.dtype.kind == "f" and labels.dtype.kind in "iu"):
        raise FormatError(
            f"{path}: expected data (n, points, 3) and whole numbers label (n,), got {points.dtype} {points.shape} and "
            f"{labels.dtype} {labels.shape}."
        )

"""Items with classes: ModelNet40, ScanObjectNN and Objaverse-LVIS (shapes), ESC-50 (sounds), ImageNet (pictures).

Names of classes are written with spaces.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cmcr.data.point_clouds import read_point_cloud
from cmcr.errors import FormatError, missing_dependency
from cmcr.evaluation.datasets.layout import (
    PICTURES,
    DataFolder,
    Item,
    files_by_stem,
    published_as,
    read_csv,
    read_json,
    read_text_lines,
)
from cmcr.evaluation.datasets.records import ClassificationRecord
from cmcr.files import reading


def _record(data: DataFolder, listed: Sequence[Item[int]], classes: Sequence[str]) -> ClassificationRecord:
    ids, items, labels, left_out = data.keep(listed)
    names = [name.replace("_", " ") for name in classes]
    modality = data.layout.modalities[0]
    return ClassificationRecord(data.name, modality, items, ids, np.array(labels, dtype=np.int64), names, left_out)


@published_as("modelnet40", ("point_cloud", "text"), splits=("test", "train"))
def modelnet40(data: DataFolder) -> ClassificationRecord:
    """Shapes of 40 classes; y is up, which is what the encoders expect by default.

    modelnet40_shape_names.txt    one class per line
    modelnet40_test.txt, modelnet40_train.txt    <class>_<number>, one per line
    <class>/<class>_<number>.txt    10,000 lines of x,y,z,normal x,normal y,normal z

    Published by Wu et al., 3D ShapeNets, CVPR 2015; resampled by Qi et al., PointNet++, NeurIPS 2017
    (modelnet40_normal_resampled).
    """
    names, listed = data.find("modelnet40_shape_names.txt"), data.find(f"modelnet40_{data.split}.txt")
    labels = {line.strip(): label for label, line in enumerate(read_text_lines(names))}
    items = []
    for line in read_text_lines(listed):
        name = line.strip()
        folder = name.rpartition("_")[0]
        if folder not in labels:
            raise FormatError(f"{listed}: {name!r} is of no class in {names.name}.")
        items.append(data.item(name, data.path / folder / f"{name}.txt", labels[folder]))
    return _record(data, items, list(labels))


_SCANOBJECTNN_CLASSES = "bag bin box cabinet chair desk display door shelf table bed pillow sink sofa toilet".split()
_SCANOBJECTNN_FILES = {
    "pb-t50-rs": "main_split/test_objectdataset_augmentedrot_scale75",
    "obj-bg": "main_split/test_objectdataset",
    "obj-only": "main_split_nobg/test_objectdataset",
}


@published_as("scanobjectnn", ("point_cloud", "text"), splits=tuple(_SCANOBJECTNN_FILES))
def scanobjectnn(data: DataFolder) -> ClassificationRecord:
    """Objects cut from scans of rooms, 15 classes; y is up, the axis about which the authors' code turns them.

    main_split/test_objectdataset_augmentedrot_scale75.h5    split 'pb-t50-rs', the hardest
    main_split/test_objectdataset.h5    split 'obj-bg'
    main_split_nobg/test_objectdataset.h5    split 'obj-only'
    (also below h5_files/; each holds data (n, 2048, 3) and label (n,); a .npz with these two arrays is read as well)

    Published by Uy et al., Revisiting Point Cloud Classification, ICCV 2019 (ScanObjectNN, h5_files).
    """
    stem = _SCANOBJECTNN_FILES[data.split]
    path = data.find(*(f"{root}{stem}{suffix}" for suffix in (".npz", ".h5") for root in ("", "h5_files/")))
    try:
        with reading(path):
            points, labels = _points_and_labels(path)
    except (ValueError, KeyError, BadZipFile) as error:
        raise FormatError(f"{path}: expected plain arrays 'data' and 'label' ({error}).") from error
    fits = points.ndim == 3 and points.shape[2] == 3 and labels.shape == points.shape[:1]
    if not fits or points.dtype.kind != "f" or labels.dtype.kind not in "iu":
        raise FormatError(
            f"{path}: expected floating-point data (n, points, 3) and integer label (n,), got {points.dtype} {points.shape} "
            f"and {labels.dtype} {labels.shape}."
        )
    items = [
        Item(f"{row:05d}", path.name, points[row].astype(np.float32), int(label)) for row, label in enumerate(labels)
    ]
    return _record(data, items, _SCANOBJECTNN_CLASSES)


def _points_and_labels(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    if path.suffix == ".npz":
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return archive["data"], archive["label"]
    try:
        import h5py
    except ImportError as error:
        purpose = f"HDF5 files ({path}); a .npz file with the same arrays needs no extra"
        raise missing_dependency("h5py", extra="h5", purpose=purpose) from error
    with h5py.File(path, "r") as content:
        return np.asarray(content["data"]), np.asarray(content["label"])


@dataclass(slots=True)
class _LvisEntry:
    uid: str
    category: str


@published_as("objaverse-lvis", ("point_cloud", "text"), splits=("all",))
def objaverse_lvis(data: DataFolder) -> ClassificationRecord:
    """Shapes of 1,156 classes, in alphabetical order.

    lvis.json    [{uid, category, ...}, ...]
    or lvis_testset.txt    class number,class,uid,path in each line
    or lvis-annotations.json    {class: [uid, ...], ...}, as the package objaverse has it
    <uid>.npz, .npy, .ply or .glb    anywhere below the folder

    Published by Deitke et al., Objaverse, CVPR 2023; the list and the clouds by Liu et al., OpenShape, NeurIPS 2023
    (split/lvis.json) and Zhou et al., Uni3D, ICLR 2024 (lvis_testset.txt).
    """
    class_of = _lvis_classes(data.find("lvis.json", "lvis_testset.txt", "lvis-annotations.json"))
    files = _shapes_below(data.path)
    labels = {name: label for label, name in enumerate(sorted(set(class_of.values())))}
    items = [Item(uid, f"{uid}.npz", files.get(uid), labels[name]) for uid, name in sorted(class_of.items())]
    record = _record(data, items, list(labels))
    if record.items[0].suffix.lower() in (".npz", ".npy"):
        # OpenShape's and Uni3D's files are pickled dictionaries, which are never opened: refused now, not after an hour.
        read_point_cloud(record.items[0])
    return record


def _lvis_classes(path: Path) -> dict[str, str]:
    """Read the class of each shape by its uid; of a shape that is listed twice the first."""
    if path.name == "lvis.json":
        pairs = [(entry.uid, entry.category) for entry in read_json(path, list[_LvisEntry])]
    elif path.name == "lvis_testset.txt":
        pairs = [(uid, name) for _, name, uid in read_csv(path, "class number", "class", "uid", header=False)]
    else:
        pairs = [(uid, name) for name, uids in read_json(path, dict[str, list[str]]).items() for uid in uids]
    return dict(reversed(pairs))


def _shapes_below(folder: Path) -> dict[str, Path]:
    """Find the shapes in all subfolders, by name without suffix; of several files the suffix that comes first here."""
    suffixes = (".npz", ".npy", ".ply", ".glb")
    found: dict[str, Path] = {}
    for place, _, _ in sorted(os.walk(folder), reverse=True):
        for stem, path in files_by_stem(Path(place), suffixes).items():
            found[stem] = min(path, found.get(stem, path), key=lambda one: suffixes.index(one.suffix.lower()))
    return found


@published_as("esc-50", ("audio", "text"), splits=("all", "fold1", "fold2", "fold3", "fold4", "fold5"))
def esc50(data: DataFolder) -> ClassificationRecord:
    """Five-second sounds of 50 classes; zero-shot figures are over all five folds, since nothing is trained.

    meta/esc50.csv    filename, fold, target, category, esc10, src_file, take
    audio/<filename>

    Published by Piczak, ESC: Dataset for Environmental Sound Classification, ACM Multimedia 2015 (the repository ESC-50).
    """
    path, sounds = data.find("meta/esc50.csv"), data.find("audio")
    rows = read_csv(path, "filename", "fold", "target", "category")
    pairs = {(target, category) for _, _, target, category in rows}
    names = dict(pairs)
    targets = [str(target) for target in range(len(pairs))]
    if names.keys() != set(targets):
        raise FormatError(f"{path}: expected targets 0, 1, 2, ... with one category each, got {sorted(pairs)[:5]}.")
    items = [
        data.item(file_name, sounds / file_name, int(target))
        for file_name, fold, target, _ in rows
        if data.split in ("all", f"fold{fold}")
    ]
    return _record(data, items, [names[target] for target in targets])


@published_as("imagenet", ("image", "text"), splits=("val",))
def imagenet(data: DataFolder) -> ClassificationRecord:
    """The 50,000 validation pictures of ILSVRC 2012; the order of the classes is that of the file of names.

    val/<WordNet id>/<picture>.JPEG    one folder per class, 50 pictures each (also ILSVRC/Data/CLS-LOC/val/)
    LOC_synset_mapping.txt    <WordNet id> <name>, <other names>; as Kaggle's copy of the challenge has it
    or imagenet_class_index.json    {"0": ["<WordNet id>", "<name>"], ...}; as Keras has it

    Published by Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015 (image-net.org).
    """
    names = _imagenet_names(data.find("LOC_synset_mapping.txt", "imagenet_class_index.json"))
    pictures = data.find("val", "ILSVRC/Data/CLS-LOC/val")
    items = []
    for label, key in enumerate(names):
        folder = pictures / key
        files = sorted(files_by_stem(folder, PICTURES).values()) if folder.is_dir() else []
        items += [Item(f"{key}/{file.name}", f"val/{key}/{file.name}", file, label) for file in files]
        items += [Item(key, f"val/{key}/ ({len(files)} of 50)", None, label)] * (50 - len(files))
    return _record(data, items, list(names.values()))


def _imagenet_names(path: Path) -> dict[str, str]:
    """Read the first name of each class by WordNet id.

    Some mean two things ("crane", "maillot"); published zero-shot figures use names edited by hand.
    """
    if path.suffix == ".json":
        index = read_json(path, dict[str, tuple[str, str]])
        if index.keys() != {str(label) for label in range(len(index))}:
            raise FormatError(f"{path}: expected the keys 0, 1, 2, ..., got {list(index)[:3]}.")
        return dict(index[str(label)] for label in range(len(index)))
    lines = [line.strip().partition(" ") for line in read_text_lines(path)]
    if not all(names for _, _, names in lines):
        raise FormatError(f"{path}: expected lines of <WordNet id> <name>, <other names>.")
    return {key: names.split(",")[0].strip() for key, _, names in lines}

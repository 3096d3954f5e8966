"""ModelNet40, ScanObjectNN, Objaverse-LVIS, ESC-50 and ImageNet: items with classes."""

import sys
from types import ModuleType

import numpy as np
import pytest
import tiny_sets

from cmcr.errors import FormatError, MissingDependencyError, SampleError
from cmcr.evaluation.datasets import read_dataset
from cmcr.evaluation.datasets.scanobjectnn import CLASSES


def test_modelnet40_classes_have_spaces_and_files_do_not(tmp_path):
    tiny_sets.modelnet40(tmp_path)
    labelled = read_dataset("modelnet40", tmp_path)
    assert (labelled.name, labelled.modality) == ("modelnet40/test", "point_cloud")
    assert list(labelled.classes) == ["airplane", "night stand"]
    np.testing.assert_array_equal(labelled.labels, [0, 1, 1])
    assert labelled.items[1] == tmp_path / "night_stand" / "night_stand_0201.txt"
    tiny_sets.text(tmp_path / "modelnet40_test.txt", "xbox_0001")
    with pytest.raises(FormatError, match=r"'xbox_0001' is of no class in modelnet40_shape_names\.txt"):
        read_dataset("modelnet40", tmp_path)


def test_scanobjectnn_arrays_become_items(tmp_path):
    tiny_sets.scanobjectnn(tmp_path)
    points, labels = tiny_sets.scanobjectnn_arrays()
    labelled = read_dataset("scanobjectnn", tmp_path)
    np.testing.assert_array_equal(np.stack(labelled.items), points)
    np.testing.assert_array_equal(labelled.labels, labels)
    assert len(CLASSES) == 15
    assert [labelled.classes[label] for label in labelled.labels] == ["bag", "toilet", "cabinet", "cabinet"]
    half = read_dataset("scanobjectnn", tmp_path, limit=2)
    assert list(half.ids) == ["00000", "00002"]


def fake_h5py(content):
    """Stands for h5py, which need not be installed: a file is a mapping of names to arrays."""

    class File(dict):
        def __init__(self, path, mode):
            assert mode == "r"
            super().__init__(content)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    module = ModuleType("h5py")
    module.File = File
    return module


def test_scanobjectnn_is_read_through_h5py(tmp_path, monkeypatch):
    points, labels = tiny_sets.scanobjectnn_arrays()
    path = tmp_path / "h5_files" / "main_split_nobg" / "test_objectdataset.h5"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", fake_h5py({"data": points, "label": labels, "mask": labels}))
    labelled = read_dataset("scanobjectnn", tmp_path, split="obj-only")
    np.testing.assert_array_equal(np.stack(labelled.items), points)
    monkeypatch.setitem(sys.modules, "h5py", fake_h5py({"data": points}))
    with pytest.raises(FormatError, match=r"test_objectdataset\.h5: expected the datasets 'data' and 'label'"):
        read_dataset("scanobjectnn", tmp_path, split="obj-only")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        MissingDependencyError, match=r"h5py.*\.npz file with the same arrays.*pip install 'cmcr\[h5\]'"
    ):
        read_dataset("scanobjectnn", tmp_path, split="obj-only")


def test_scanobjectnn_of_another_shape_is_refused(tmp_path):
    tiny_sets.scanobjectnn(tmp_path)
    path = tmp_path / "main_split" / "test_objectdataset_augmentedrot_scale75.npz"
    np.savez(path, data=np.zeros((2, 5, 6), dtype=np.float32), label=np.zeros(2, dtype=np.int64))
    with pytest.raises(FormatError, match=r"expected data \(n, points, 3\).*got float32 \(2, 5, 6\)"):
        read_dataset("scanobjectnn", tmp_path)
    np.savez(path, points=np.zeros(3))
    with pytest.raises(FormatError, match="expected plain arrays 'data' and 'label'"):
        read_dataset("scanobjectnn", tmp_path)


def test_objaverse_lvis_classes_in_the_order_of_the_alphabet(tmp_path):
    tiny_sets.objaverse_lvis(tmp_path)
    labelled = read_dataset("objaverse-lvis", tmp_path)
    assert list(labelled.ids) == ["aaa", "bbb", "ccc"]
    assert list(labelled.classes) == ["Band Aid", "zebra"]
    np.testing.assert_array_equal(labelled.labels, [1, 0, 0])
    assert labelled.items[0] == tmp_path / "clouds" / "000-002" / "aaa.npz"


@pytest.mark.parametrize("listed", ["lvis_testset.txt", "lvis-annotations.json"])
def test_objaverse_lvis_by_the_other_lists(tmp_path, listed):
    tiny_sets.objaverse_lvis(tmp_path)
    expected = read_dataset("objaverse-lvis", tmp_path).content_hash
    (tmp_path / "lvis.json").unlink()
    if listed.endswith(".txt"):
        rows = [("0", "Band_Aid", "bbb"), ("1", "zebra", "aaa"), ("0", "Band_Aid", "ccc"), ("1", "zebra", "ccc")]
        tiny_sets.text(tmp_path / listed, *(f"{','.join(row)},/000/{row[2]}.npy" for row in rows))
    else:
        tiny_sets.as_json(tmp_path / listed, {"Band_Aid": ["bbb", "ccc"], "zebra": ["aaa", "ccc"]})
    assert (
        read_dataset("objaverse-lvis", tmp_path).content_hash == expected
    )  # a shape listed twice keeps its first class


def test_pickled_clouds_are_refused_at_once_with_the_way_out(tmp_path):
    tiny_sets.objaverse_lvis(tmp_path)
    place = tmp_path / "clouds" / "000-002"
    (place / "aaa.npz").unlink()
    np.save(place / "aaa.npy", {"xyz": np.zeros((20, 3))}, allow_pickle=True)
    with pytest.raises(SampleError, match=r"aaa\.npy: not a plain array.*numpy.save"):
        read_dataset("objaverse-lvis", tmp_path)


def test_esc50_reads_all_folds_or_one(tmp_path):
    tiny_sets.esc50(tmp_path)
    labelled = read_dataset("esc-50", tmp_path)
    assert (labelled.name, list(labelled.classes)) == ("esc-50/all", ["dog", "chirping birds"])
    np.testing.assert_array_equal(labelled.labels, [0, 1, 1])
    fold = read_dataset("esc-50", tmp_path, split="fold5")
    assert list(fold.ids) == ["5-200-A-1.wav"]
    assert list(fold.classes) == ["dog", "chirping birds"]


@pytest.mark.parametrize("row", ["1-1-A-7.wav,1,7,cat,x,1,A", "1-1-A-0.wav,1,0,cat,x,1,A", "a.wav,1,zero,cat,x,1,A"])
def test_esc50_refuses_targets_without_one_category_each(tmp_path, row):
    tiny_sets.esc50(tmp_path)
    table = tmp_path / "meta/esc50.csv"
    table.write_text(f"{table.read_text(encoding='utf-8')}{row}\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"esc50\.csv: expected (targets 0, 1, 2|whole numbers)"):
        read_dataset("esc-50", tmp_path)


def test_imagenet_names_from_either_file(tmp_path):
    tiny_sets.imagenet(tmp_path)
    (tmp_path / "val/n01440764/._ILSVRC2012_val_00000000.JPEG").write_bytes(b"from macOS")
    labelled = read_dataset("imagenet", tmp_path)
    assert (len(labelled.items), list(labelled.classes)) == (100, ["tench", "goldfish"])
    np.testing.assert_array_equal(np.bincount(labelled.labels), [50, 50])
    assert labelled.ids[50] == "n01443537/ILSVRC2012_val_00000000.JPEG"
    few = read_dataset("imagenet", tmp_path, limit=4)
    np.testing.assert_array_equal(few.labels, [0, 0, 1, 1])
    (tmp_path / "LOC_synset_mapping.txt").unlink()
    index = {"0": ["n01440764", "tench"], "1": ["n01443537", "gold_fish"]}
    tiny_sets.as_json(tmp_path / "imagenet_class_index.json", index)
    assert list(read_dataset("imagenet", tmp_path).classes) == ["tench", "gold fish"]
    tiny_sets.as_json(tmp_path / "imagenet_class_index.json", {"1": ["n01440764", "tench"]})
    with pytest.raises(FormatError, match="imagenet_class_index"):
        read_dataset("imagenet", tmp_path)


def test_imagenet_misses_pictures_of_a_class_that_is_not_whole(tmp_path):
    tiny_sets.imagenet(tmp_path, per_class=30)
    labelled = read_dataset("imagenet", tmp_path, allow_missing=True)
    assert (len(labelled.items), labelled.left_out) == (60, 40)
    with pytest.raises(FileNotFoundError, match=r"40 of the 100 items.*val/n01440764/ \(30 of 50\)"):
        read_dataset("imagenet", tmp_path)

"""Every data set in its published layout: items and annotations, the hash, limits, missing files, and what is refused."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_sets

import cmcr
from cmcr.data.audio import SoundClip
from cmcr.data.videos import VideoFrame
from cmcr.errors import ArtefactNotFoundError, ConfigError, FormatError, MissingDependencyError, SampleError
from cmcr.evaluation.datasets import LAYOUTS, read_dataset
from cmcr.evaluation.datasets.records import (
    ClassificationRecord,
    CounterfactualRecord,
    LocalizationRecord,
    RetrievalRecord,
)

NAMES = sorted(LAYOUTS)
SPACES = {"text": "mini-clip", "image": "mini-clip", "audio": "mini-clap", "point_cloud": "mini-ulip"}

# Data set and split, how many are left out, and the items: id, files (a moment of a video after @, a part of a sound after
# [), and captions, class, boxes or presence.
WHOLE = """
ave/all, 0
RUhOCu3LNXM: AVE/RUhOCu3LNXM.mp4, AVE/RUhOCu3LNXM.mp4 @ None
aaaaaaaaaaa: AVE/aaaaaaaaaaa.mp4, AVE/aaaaaaaaaaa.mp4 @ None
-bbbbbbbbbb: AVE/-bbbbbbbbbb.mp4, AVE/-bbbbbbbbbb.mp4 @ None

flickr-soundnet/test, 0
10000: audio/10000.wav, frames/10000.jpg
10002: audio/10002.wav, frames/10002.jpg
10003: audio/10003.wav, frames/10003.jpg

flickr-soundnet-boxes/test, 1
10000: frames/10000.jpg, audio/10000.wav, [[0.0, 0.0, 0.5, 1.0], [0.25, 0.0, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]]
10002: frames/10002.jpg, audio/10002.wav, [[0.0, 0.0, 0.25, 0.25]]

vgg-ss/heard, 1
00QQLLcny14_000083: audio/00QQLLcny14_000083.wav, frames/00QQLLcny14_000083.jpg

vgg-ss-boxes/all, 1
-0BIyqJj9ZU_000030: frames/-0BIyqJj9ZU_000030.jpg, audio/-0BIyqJj9ZU_000030.wav, [[0.25, 0.5, 0.75, 1.0]]
00QQLLcny14_000083: frames/00QQLLcny14_000083.jpg, audio/00QQLLcny14_000083.wav, [[0.0, 0.0, 0.5, 0.5], [0.0, 0.5, 1.0, 1.0]]

music-solo/test, 1
1_0/frame_000/0.jpg: video_frames/1_0/frame_000/0.jpg, audio/1_0.wav [0.0, 1.0], [[0.0, 0.25, 0.5, 0.75], [0.5, 0.5, 1.0, 1.0]]
4_0/frame_001/30.jpg: video_frames/4_0/frame_001/30.jpg, audio/4_0.wav [1.0, 1.0], [[0.25, 0.0, 0.625, 0.5]]

ex-vgg-ss/test, 0
a1 a1: frames/a1.jpg, audio/a1.wav, True
b2 b2: frames/b2.jpg, audio/b2.wav, True
a1 b2: frames/a1.jpg, audio/b2.wav, False
c3 a1: frames/c3.jpg, audio/a1.wav, False

coco/karpathy-test, 0
42.jpg: val2014/42.jpg, ['a cat 0', 'a cat 1', 'a cat 2', 'a cat 3', 'a cat 4']
74.jpg: val2014/74.jpg, ['a dog 0 ', 'a dog 1 ']

coco/val2017, 0
000000000139.jpg: val2017/000000000139.jpg, ['first', 'second', 'third']
000000000285.jpg: val2017/000000000285.jpg, ['a bear']

flickr30k/test, 0
1007129816.jpg: flickr30k-images/1007129816.jpg, ['a man 0', 'a man 1']
1009434119.jpg: flickr30k-images/1009434119.jpg, ['a dog']

audiocaps/test, 0
abcdefghijk_30: audio/abcdefghijk_30.wav, ['A dog barks 1', 'A dog barks 2']
-1234567890_0: audio/Y-1234567890.wav, ['Rain, and thunder']
ZZZZZZZZZZZ_10: audio/7.wav, ['Speech']

clotho/evaluation, 0
Rain (1).wav: evaluation/Rain (1).wav, ['Rain, falling', 'b', 'c', 'd', 'e']
Été.wav: evaluation/Été.wav, ['f', 'g', 'h', 'i', 'j']

modelnet40/test, 0
airplane_0627: airplane/airplane_0627.txt, airplane
night_stand_0201: night_stand/night_stand_0201.txt, night stand
night_stand_0202: night_stand/night_stand_0202.txt, night stand

objaverse-lvis/all, 0
aaa: clouds/000-002/aaa.npz, zebra
bbb: clouds/000-001/bbb.npz, Band Aid
ccc: clouds/000-001/ccc.npz, Band Aid

esc-50/fold5, 0
5-200-A-1.wav: audio/5-200-A-1.wav, chirping birds
"""


def parts_of(record):
    """Ids, items by modality, and what the annotations say of each item."""
    if isinstance(record, RetrievalRecord):
        own = np.split(record.positives.values, record.positives.starts[1:-1])
        items = dict(zip(record.modalities, (record.first, record.second), strict=True))
        return record.first_ids, items, [[record.second[row] for row in rows] for rows in own]
    if isinstance(record, ClassificationRecord):
        return record.ids, {record.modality: record.items}, [record.classes[label] for label in record.labels]
    facts = [boxes.tolist() for boxes in record.boxes] if isinstance(record, LocalizationRecord) else record.present
    return record.ids, {"image": record.images, "audio": record.sounds}, facts


def written_out(record, folder):
    def shown(item):
        if isinstance(item, VideoFrame):
            return f"{shown(item.path)} @ {item.at_seconds}"
        if isinstance(item, SoundClip):
            return f"{shown(item.path)} [{item.start_seconds}, {item.length_seconds}]"
        if isinstance(item, list) and not isinstance(item[0], str | list):
            return ", ".join(map(shown, item))
        return item.relative_to(folder).as_posix() if isinstance(item, Path) else str(item)

    ids, items, facts = parts_of(record)
    columns = [record.first] if isinstance(record, RetrievalRecord) else items.values()
    rows = (", ".join(map(shown, row)) for row in zip(*columns, facts, strict=True))
    return "\n".join([f"{record.name}, {record.left_out}", *map("{}: {}".format, ids, rows)])


@pytest.mark.parametrize("expected", WHOLE.strip().split("\n\n"), ids=lambda text: text.split(",")[0])
def test_a_layout_is_read_whole(expected, tmp_path):
    name, split = expected.split(",")[0].split("/")
    folder = tiny_sets.write(name, tmp_path)
    assert written_out(read_dataset(name, folder, split=split), folder) == expected


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return {name: tiny_sets.write(name, root / name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_spaces_read_the_items_of_a_record(sets, name):
    record = read_dataset(name, sets[name])
    assert record.name == f"{name}/{LAYOUTS[name].splits[0]}"
    for modality, items in parts_of(record)[1].items():
        assert modality in LAYOUTS[name].modalities
        given = ["seven"] if modality == "text" else list(items[:2])
        assert np.isfinite(cmcr.space(SPACES[modality]).encode(given, modality=modality)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_hash_depends_on_the_content_and_a_missing_file_is_counted_and_named(sets, name, tmp_path):
    whole = read_dataset(name, sets[name])
    moved = shutil.copytree(sets[name], tmp_path / "elsewhere" / "far")
    again = read_dataset(name, moved)
    assert again.content_hash == whole.content_hash
    items = (getattr(item, "path", item) for items in parts_of(again)[1].values() for item in items)
    file = next((item for item in items if isinstance(item, Path)), None)
    if file is None:  # ScanObjectNN is one file
        return
    file.write_bytes(file.read_bytes() + b"\n")
    assert read_dataset(name, moved).content_hash != whole.content_hash
    file.unlink()
    with pytest.raises(ArtefactNotFoundError, match=rf"of the \d+ items of {name} are missing: .*{moved}"):
        read_dataset(name, moved)
    rest = read_dataset(name, moved, allow_missing=True)
    gone = set(parts_of(whole)[0]) - set(parts_of(rest)[0])
    assert len(gone) == (2 if isinstance(whole, CounterfactualRecord) else 1)  # a picture is in two of its pairs
    assert rest.left_out == whole.left_out + len(gone)


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_takes_evenly_spaced_items(sets, name):
    whole, two, many = (parts_of(read_dataset(name, sets[name], limit=limit))[0] for limit in (None, 2, 10_000))
    assert two == [whole[0], whole[len(whole) // 2]]
    assert many == whole


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_an_error_with_the_layout(name, tmp_path):
    with pytest.raises(ArtefactNotFoundError, match=f"is missing. Layout of {name}") as caught:
        read_dataset(name, tmp_path)
    assert "Published by" in str(caught.value)
    with pytest.raises(ArtefactNotFoundError, match="no such folder"):
        read_dataset(name, tmp_path / "nowhere")


def moved(old, new):
    return lambda folder: (folder / old).rename(tiny_sets.ready(folder / new))


def listed(old, new, *lines):
    """Another list in place of the old one."""
    return lambda folder: ((folder / old).unlink(), tiny_sets.text(folder / new, *lines))


def written(path, content):
    return lambda folder: tiny_sets.ready(folder / path).write_bytes(content)


def as_hdf5(folder):
    h5py = pytest.importorskip("h5py")
    (folder / f"{HARDEST}.npz").unlink()
    with h5py.File(tiny_sets.ready(folder / f"h5_files/{HARDEST}.h5"), "w") as file:
        file["data"], file["label"] = tiny_sets.scanobjectnn_arrays()
        file["mask"] = np.zeros(4)


HARDEST = "main_split/test_objectdataset_augmentedrot_scale75"
UIDS = {"Band_Aid": ["bbb", "ccc"], "zebra": ["aaa", "ccc"]}  # ccc is listed twice and keeps its first class
UNI3D = [f"{label},{name},{uid},/000/{uid}.npy" for label, name in enumerate(UIDS) for uid in UIDS[name]]
KERAS = {"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench"]}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (
            "flickr-soundnet-boxes",
            listed("metadata/flickr_test.csv", "test_list.txt", *(f"1000{n}.png" for n in (2, 0, 3))),
        ),
        ("flickr-soundnet-boxes", moved("Annotations", "test/Annotations")),
        (
            "vgg-ss",
            lambda folder: written("vggss.json", b"\xef\xbb\xbf" + (folder / "vggss.json").read_bytes())(folder),
        ),
        ("vgg-ss", written("frames/00QQLLcny14_000083.png", b"a suffix that comes later")),
        ("ex-flickrnet", moved("frames", "extend_frames")),
        ("clotho", moved("evaluation", "clotho_audio_evaluation")),
        ("clotho", moved("evaluation", "clotho_audio_evaluation/evaluation")),
        ("scanobjectnn", as_hdf5),
        ("objaverse-lvis", written("clouds/000-001/aaa.ply", b"a suffix that comes later")),
        ("objaverse-lvis", listed("lvis.json", "lvis_testset.txt", *UNI3D)),
        ("objaverse-lvis", listed("lvis.json", "lvis-annotations.json", json.dumps(UIDS))),
        ("imagenet", written("val/n01440764/._00000000.JPEG", b"from macOS")),
        ("imagenet", listed("LOC_synset_mapping.txt", "imagenet_class_index.json", json.dumps(KERAS))),
    ],
)
def test_other_forms_give_the_same_record(name, change, tmp_path):
    folder = tiny_sets.write(name, tmp_path)
    expected = read_dataset(name, folder).content_hash
    change(folder)
    assert read_dataset(name, folder).content_hash == expected


def test_vgg_ss_takes_the_annotated_frame_of_videos(tmp_path):
    tiny_sets.as_json(tmp_path / "metadata/vggss.json", [{"file": "-0B_000030", "bbox": [[0.25, 0.5, 0.75, 1]]}])
    video = tmp_path / "videos" / "-0B_000030.mp4"
    tiny_sets.text(video)
    record = read_dataset("vgg-ss-boxes", tmp_path)
    assert (record.images, record.sounds) == ([VideoFrame(video, 5.0)], [video])


def test_music_solo_is_read_in_its_later_form_too(tmp_path):
    box = [0.25, 0.0, 0.25, 0.5]
    tiny_sets.as_json(tmp_path / "metadata/music_solo.json", [{"file": "4Oy5VmaacaI_001_00030", "bbox": box}])
    tiny_sets.picture(tmp_path / "frames/4Oy5VmaacaI_001_00030.jpg")
    tiny_sets.sound(tmp_path / "audio/4Oy5VmaacaI.wav")
    record = read_dataset("music-solo", tmp_path)
    np.testing.assert_array_equal(record.boxes[0], [[0.25, 0, 0.5, 0.5]])
    assert record.sounds == [SoundClip(tmp_path / "audio/4Oy5VmaacaI.wav", 1.0, 1.0)]


def test_captions_of_white_space_are_left_out_and_counted(tmp_path):
    image = tiny_sets.karpathy_image("4.jpg", "test", ["a", " ", "", "b"])
    tiny_sets.as_json(tmp_path / "dataset_coco.json", {"images": [image]})
    tiny_sets.picture(tmp_path / "4.jpg")
    pairs = read_dataset("coco", tmp_path)
    assert (pairs.second, pairs.second_ids, pairs.left_out) == (["a", "b"], ["4.jpg#0", "4.jpg#3"], 2)
    image["sentences"] = [{"raw": " "}]
    tiny_sets.as_json(tmp_path / "dataset_coco.json", {"images": [image]})
    with pytest.raises(FormatError, match=r"4\.jpg of coco has no caption"):
        read_dataset("coco", tmp_path)


def test_scanobjectnn_arrays_become_items(tmp_path):
    tiny_sets.scanobjectnn(tmp_path)
    shapes = read_dataset("scanobjectnn", tmp_path)
    np.testing.assert_array_equal(np.stack(shapes.items), tiny_sets.scanobjectnn_arrays()[0])
    assert [shapes.classes[label] for label in shapes.labels] == ["bag", "toilet", "cabinet", "cabinet"]
    path = tmp_path / f"{HARDEST}.npz"
    np.savez(path, data=np.zeros((2, 5, 6), dtype=np.float32), label=np.zeros(2, dtype=np.int64))
    with pytest.raises(FormatError, match=r"got float32 \(2, 5, 6\)"):
        read_dataset("scanobjectnn", tmp_path)
    np.savez(path, points=np.zeros(3))
    for content in (path.read_bytes(), path.read_bytes()[:-30], b"x"):
        path.write_bytes(content)
        with pytest.raises(FormatError, match="plain arrays 'data' and 'label'"):
            read_dataset("scanobjectnn", tmp_path)


def test_hdf5_without_h5py_is_refused(tmp_path, monkeypatch):
    tiny_sets.text(tmp_path / "main_split/test_objectdataset.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"cmcr\[h5\]"):
        read_dataset("scanobjectnn", tmp_path, split="obj-bg")


def test_pickled_clouds_are_refused_before_any_is_embedded(tmp_path):
    tiny_sets.objaverse_lvis(tmp_path)
    path = tmp_path / "clouds/000-002/aaa.npz"
    path.unlink()
    np.save(path.with_suffix(".npy"), {"xyz": np.zeros((20, 3))}, allow_pickle=True)
    with pytest.raises(SampleError, match=r"aaa\.npy: not a plain array"):
        read_dataset("objaverse-lvis", tmp_path)


def test_imagenet_has_fifty_pictures_a_class(tmp_path):
    tiny_sets.imagenet(tmp_path)
    pictures = read_dataset("imagenet", tmp_path)
    assert list(pictures.classes) == ["tench", "goldfish"]
    np.testing.assert_array_equal(np.bincount(pictures.labels), [50, 50])
    assert pictures.ids[50] == "n01443537/00000000.JPEG"
    (tmp_path / "val/n01440764/00000000.JPEG").unlink()
    with pytest.raises(ArtefactNotFoundError, match=r"1 of the 100 items.*val/n01440764/ \(49 of 50\)"):
        read_dataset("imagenet", tmp_path)


ESC_50 = "filename,fold,target,category\n1.wav,1,0,dog\n"


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("ave", "Annotations.txt", "Bark,aaaaaaaaaaa,good,0,3", "got 'Bark,aaa"),
        ("flickr-soundnet-boxes", "Annotations/10002.xml", "<r><bbox><t>1</t><a>2</a></bbox></r>", "xmin, ymin, xmax"),
        ("vgg-ss", "vggss.json", [{"file": "a", "bbox": [[0, 0, 1, "1"]]}], r"at 0\.bbox\.0\.3: .*valid number"),
        ("vgg-ss", "vggss.json", [{"file": "a", "bbox": []}] * 2, "1 of its 2 files are listed twice"),
        ("vgg-ss", "vggss.json", [], "name no items"),
        ("music-solo", "solotest.json", {"video.jpg": {"bbox": []}}, "expected frames named <video>/frame_<second>"),
        ("ex-vgg-ss", "vggss_test_plus_silent.csv", "a1,b2", r"row 1: expected 3 cells, got \['a1', 'b2'\]"),
        ("ex-vgg-ss", "vggss_test.csv", 'a1,"pigeon', "not a CSV file"),
        ("coco", "dataset_coco.json", {"images": []}, "holds no picture of the split 'test'"),
        ("audiocaps", "test.csv", "youtube_id,caption\na,b", "expected the columns audiocap_id, .*got youtube_id"),
        ("modelnet40", "modelnet40_test.txt", "xbox_0001", "'xbox_0001' is of no class"),
        ("esc-50", "meta/esc50.csv", f"{ESC_50}1-1-A-7.wav,1,7,cat", "expected targets 0, 1, 2"),
        ("esc-50", "meta/esc50.csv", f"{ESC_50}1-1-A-0.wav,1,0,cat", "with one category each"),
        ("imagenet", "LOC_synset_mapping.txt", "n01440764", "expected lines of <WordNet id> <name>"),
    ],
)
def test_annotations_of_another_form_are_refused_with_file_and_place(tmp_path, name, file, content, message):
    tiny_sets.write(name, tmp_path)
    write = tiny_sets.text if isinstance(content, str) else tiny_sets.as_json
    write(tmp_path / file, content)
    with pytest.raises(FormatError, match=message) as caught:
        read_dataset(name, tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("modelnet", {}, "Did you mean 'modelnet40'"),
        ("vgg-ss", {"split": "nosuch"}, "Known: all, heard, unheard"),
        ("vgg-ss", {"limit": 0}, "at least 1, got 0"),
    ],
)
def test_unknown_names_splits_and_limits_are_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        read_dataset(name, ".", **options)

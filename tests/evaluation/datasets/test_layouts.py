"""What each published layout says: ids, boxes, labels, captions, and which of its files are refused."""

import sys

import numpy as np
import pytest
import tiny_sets

from cmcr.data.audio import SoundClip, read_audio
from cmcr.data.images import read_image
from cmcr.data.videos import VideoFrame
from cmcr.errors import ArtefactNotFoundError, FormatError, MissingDependencyError, SampleError
from cmcr.evaluation.datasets import read_dataset

VGG_SS = tiny_sets.VGG_SS
SOLO = {"file": "4Oy5VmaacaI_001_00030", "class": "cello", "bbox": [0.35, 0.0, 0.25, 0.5]}
XML = "<r><a><bbox>{}</bbox></a><note/></r>"
ESC_50 = "filename,fold,target,category\n1.wav,1,0,dog\n"


def test_ave_pairs_each_video_once(tmp_path):
    tiny_sets.ave(tmp_path)
    pairs = read_dataset("ave", tmp_path)
    assert list(pairs.first_ids) == ["RUhOCu3LNXM", "aaaaaaaaaaa", "-bbbbbbbbbb"]
    assert pairs.second[1] == VideoFrame(tmp_path / "AVE" / "aaaaaaaaaaa.mp4")
    assert pairs.first[1] == tmp_path / "AVE" / "aaaaaaaaaaa.mp4"
    np.testing.assert_array_equal(pairs.positives.values, [0, 1, 2])
    assert round(np.asarray(read_image(pairs.second[0])).mean() / 20) == 5  # frame 5 of 10
    assert abs(np.median(read_audio(pairs.first[0], 44_100)) - 0.25) < 0.02
    assert list(read_dataset("ave", tmp_path, split="test").first_ids) == ["RUhOCu3LNXM", "-bbbbbbbbbb"]
    with pytest.raises(ArtefactNotFoundError, match=r"valSet\.txt is missing"):
        read_dataset("ave", tmp_path, split="val")


def test_flickr_soundnet_boxes_are_shares_of_256_pixels(tmp_path):
    tiny_sets.flickr_soundnet(tmp_path)
    boxed = read_dataset("flickr-soundnet-boxes", tmp_path)
    assert (list(boxed.ids), boxed.left_out) == (["10000", "10002"], 1)  # 10003 has no box with a size
    np.testing.assert_array_equal(boxed.boxes[0], [[0, 0, 0.5, 1], [0.25, 0, 0.5, 0.5], [0, 0, 1, 1]])
    assert boxed.images[1] == tmp_path / "frames" / "10002.jpg"
    assert boxed.sounds[1] == tmp_path / "audio" / "10002.wav"
    every = read_dataset("flickr-soundnet-boxes", tmp_path, split="all")
    np.testing.assert_array_equal(every.boxes[1], [[0.125, 0.25, 0.375, 0.5]] * 3)
    pairs = read_dataset("flickr-soundnet", tmp_path)
    assert (len(pairs.first), pairs.left_out) == (4, 0)
    test = read_dataset("flickr-soundnet", tmp_path, split="test")
    assert list(test.first_ids) == ["10000", "10002", "10003"]
    (tmp_path / "metadata" / "flickr_test.csv").unlink()
    tiny_sets.text(tmp_path / "test_list.txt", "10002.png", "10000.png", "10003.png")  # the authors' own form
    assert read_dataset("flickr-soundnet", tmp_path, split="test").content_hash == test.content_hash


def test_flickr_soundnet_may_be_in_a_folder_named_test(tmp_path):
    tiny_sets.flickr_soundnet(tmp_path / "test")
    (tmp_path / "test" / "metadata").rename(tmp_path / "metadata")
    assert len(read_dataset("flickr-soundnet-boxes", tmp_path).ids) == 2
    (tmp_path / "test" / "Annotations" / "10002.xml").unlink()
    with pytest.raises(ArtefactNotFoundError, match=r"Annotations/10002\.xml"):
        read_dataset("flickr-soundnet-boxes", tmp_path)


def test_vgg_ss_boxes_are_clipped_to_the_picture(tmp_path):
    tiny_sets.vgg_ss(tmp_path)
    boxed = read_dataset("vgg-ss-boxes", tmp_path)
    assert list(boxed.ids) == ["-0BIyqJj9ZU_000030", "00QQLLcny14_000083"]
    assert boxed.left_out == 1  # the clip whose only box has no width
    np.testing.assert_array_equal(boxed.boxes[0], [[0.25, 0.5, 0.75, 1.0]])
    np.testing.assert_array_equal(boxed.boxes[1], [[0, 0, 0.5, 0.5], [0, 0.5, 1, 1]])
    heard = read_dataset("vgg-ss", tmp_path, split="heard")
    assert (list(heard.first_ids), heard.left_out) == (["00QQLLcny14_000083"], 1)


def test_vgg_ss_takes_the_annotated_frame_of_videos(tmp_path):
    tiny_sets.as_json(tmp_path / "metadata" / "vggss.json", VGG_SS[:1])
    video = tmp_path / "videos" / "-0BIyqJj9ZU_000030.mp4"
    tiny_sets.text(video)
    boxed = read_dataset("vgg-ss-boxes", tmp_path)
    assert (boxed.images, boxed.sounds) == ([VideoFrame(video, 5.0)], [video])


def test_of_two_files_of_one_name_the_published_suffix_wins(tmp_path):
    tiny_sets.vgg_ss(tmp_path)
    name = VGG_SS[0]["file"]
    tiny_sets.picture(tmp_path / "frames" / f"{name}.png")
    tiny_sets.text(tmp_path / "audio" / f"{name}.mp3")
    pairs = read_dataset("vgg-ss", tmp_path, limit=1)
    assert (pairs.first[0].suffix, pairs.second[0].suffix) == (".wav", ".jpg")
    (tmp_path / "frames" / f"{name}.jpg").unlink()
    assert read_dataset("vgg-ss", tmp_path, limit=1).second[0].suffix == ".png"


def test_annotations_with_a_byte_order_mark_are_read(tmp_path):
    tiny_sets.vgg_ss(tmp_path)
    listed = tmp_path / "vggss.json"
    listed.write_text("\ufeff" + listed.read_text(encoding="utf-8"), encoding="utf-8")
    assert len(read_dataset("vgg-ss", tmp_path).first) == 2


def test_music_solo_boxes_are_corner_and_size_and_sounds_are_one_second(tmp_path):
    tiny_sets.music_solo(tmp_path)
    boxed = read_dataset("music-solo", tmp_path)
    assert list(boxed.ids) == ["1Ju4S0qeDqw_0_1000/frame_000/00000.jpg", "4Oy5VmaacaI_0_1000/frame_001/00030.jpg"]
    assert boxed.left_out == 1  # the frame without a box
    np.testing.assert_allclose(boxed.boxes[0], [[0.25, 0.25, 0.5, 0.75], [0.5, 0.5, 1.0, 0.75]])
    assert boxed.sounds[1] == SoundClip(tmp_path / "audio" / "4Oy5VmaacaI_0_1000.wav", 1.0, 1.0)
    assert boxed.images[1] == tmp_path / "video_frames" / boxed.ids[1]


def test_music_solo_is_read_in_its_later_form_too(tmp_path):
    tiny_sets.as_json(tmp_path / "metadata" / "music_solo.json", [SOLO])
    tiny_sets.picture(tmp_path / "frames" / "4Oy5VmaacaI_001_00030.jpg")
    tiny_sets.sound(tmp_path / "audio" / "4Oy5VmaacaI.wav", seconds=2)
    boxed = read_dataset("music-solo", tmp_path)
    np.testing.assert_allclose(boxed.boxes[0], [[0.35, 0, 0.6, 0.5]])
    assert boxed.sounds == [SoundClip(tmp_path / "audio" / "4Oy5VmaacaI.wav", 1.0, 1.0)]


@pytest.mark.parametrize(("name", "stem"), [("ex-vgg-ss", "vggss"), ("ex-flickrnet", "flickr")])
def test_extended_sets_hold_true_pairs_and_false_ones(tmp_path, name, stem):
    tiny_sets.extended(tmp_path, stem)
    record = read_dataset(name, tmp_path)
    assert list(record.ids) == ["a1 a1", "b2 b2", "a1 b2", "c3 a1"]  # the row that is there twice counts once
    np.testing.assert_array_equal(record.present, [True, True, False, False])
    assert record.images[3] == tmp_path / "frames" / "c3.jpg"
    assert record.sounds[3] == tmp_path / "audio" / "a1.wav"
    expected = record.content_hash
    for folder in ("frames", "audio"):
        (tmp_path / folder).rename(tmp_path / f"extend_{folder}")
    assert read_dataset(name, tmp_path).content_hash == expected
    tiny_sets.text(tmp_path / f"{stem}_test.csv", 'a1,"pigeon, dove cooing"')  # as in the published list
    assert read_dataset(name, tmp_path).present.sum() == 1


def test_coco_takes_the_first_five_captions_of_the_karpathy_split(tmp_path):
    tiny_sets.coco(tmp_path)
    pairs = read_dataset("coco", tmp_path)
    assert pairs.second == [*(f"a cat {n}" for n in range(5)), *(f"a dog {n} " for n in range(5))]
    assert pairs.first[1] == tmp_path / "val2014" / "COCO_val2014_000000000074.jpg"
    assert pairs.second_ids[5] == "COCO_val2014_000000000074.jpg#0"
    np.testing.assert_array_equal(pairs.positives.counts, [5, 5])
    with pytest.raises(FormatError, match=r"dataset_coco\.json: holds no picture of the split 'val'"):
        read_dataset("coco", tmp_path, split="karpathy-val")


def test_coco_of_2017_takes_captions_by_rising_id(tmp_path):
    tiny_sets.coco(tmp_path)
    pairs = read_dataset("coco", tmp_path, split="val2017")
    assert list(pairs.first_ids) == ["000000000139.jpg", "000000000285.jpg"]
    assert pairs.second == ["first", "second", "third", "a bear"]
    np.testing.assert_array_equal(pairs.positives.counts, [3, 1])


def test_captions_of_white_space_are_left_out_and_counted(tmp_path):
    tiny_sets.coco(tmp_path)
    name = "COCO_val2014_000000000042.jpg"
    image = tiny_sets.karpathy_image(name, "test", ["a", " ", "", "b"], filepath="val2014")
    tiny_sets.as_json(tmp_path / "dataset_coco.json", {"images": [image]})
    pairs = read_dataset("coco", tmp_path)
    assert (pairs.second, pairs.left_out) == (["a", "b"], 2)
    assert list(pairs.second_ids) == [f"{name}#0", f"{name}#3"]
    image["sentences"] = [{"raw": " "}]
    tiny_sets.as_json(tmp_path / "dataset_coco.json", {"images": [image]})
    with pytest.raises(FormatError, match=f"{name} of coco has no caption"):
        read_dataset("coco", tmp_path)


def test_flickr30k_by_split_and_as_a_whole(tmp_path):
    tiny_sets.flickr30k(tmp_path)
    pairs = read_dataset("flickr30k", tmp_path)
    assert list(pairs.first_ids) == ["1007129816.jpg", "1009434119.jpg"]
    assert pairs.second[0] == "a man 0"
    every = read_dataset("flickr30k", tmp_path, split="all")
    assert every.second[-1] == "Two men ."
    np.testing.assert_array_equal(every.positives.counts, [5, 1])


def test_audiocaps_finds_clips_by_each_common_name(tmp_path):
    tiny_sets.audiocaps(tmp_path)
    pairs = read_dataset("audiocaps", tmp_path)
    assert list(pairs.first_ids) == ["abcdefghijk_30", "-1234567890_0", "ZZZZZZZZZZZ_10"]
    assert [path.name for path in pairs.first] == ["abcdefghijk_30.wav", "Y-1234567890.wav", "7.wav"]
    assert pairs.second[5:] == ["Rain, and thunder", "Speech"]
    np.testing.assert_array_equal(pairs.positives.counts, [5, 1, 1])


@pytest.mark.parametrize("folder", ["evaluation", "clotho_audio_evaluation", "clotho_audio_evaluation/evaluation"])
def test_clotho_wherever_its_archive_was_unpacked(tmp_path, folder):
    tiny_sets.clotho(tmp_path)
    if folder != "evaluation":
        (tmp_path / folder).parent.mkdir(exist_ok=True)
        (tmp_path / "evaluation").rename(tmp_path / folder)
    pairs = read_dataset("clotho", tmp_path)
    assert list(pairs.first_ids) == ["Rain (1).wav", "Été.wav"]
    assert pairs.first[1] == tmp_path / folder / "Été.wav"
    assert pairs.second == ["Rain, falling", *"bcdefghij"]


def test_modelnet40_classes_have_spaces_and_files_do_not(tmp_path):
    tiny_sets.modelnet40(tmp_path)
    shapes = read_dataset("modelnet40", tmp_path)
    assert list(shapes.classes) == ["airplane", "night stand"]
    np.testing.assert_array_equal(shapes.labels, [0, 1, 1])
    assert shapes.items[1] == tmp_path / "night_stand" / "night_stand_0201.txt"


def test_scanobjectnn_arrays_become_items(tmp_path):
    tiny_sets.scanobjectnn(tmp_path)
    points, labels = tiny_sets.scanobjectnn_arrays()
    shapes = read_dataset("scanobjectnn", tmp_path)
    np.testing.assert_array_equal(np.stack(shapes.items), points)
    np.testing.assert_array_equal(shapes.labels, labels)
    assert len(shapes.classes) == 15
    assert [shapes.classes[label] for label in shapes.labels] == ["bag", "toilet", "cabinet", "cabinet"]
    assert list(read_dataset("scanobjectnn", tmp_path, limit=2).ids) == ["00000", "00002"]
    path = tmp_path / "main_split" / "test_objectdataset_augmentedrot_scale75.npz"
    np.savez(path, data=np.zeros((2, 5, 6), dtype=np.float32), label=np.zeros(2, dtype=np.int64))
    with pytest.raises(FormatError, match=r"data \(n, points, 3\).*got float32 \(2, 5, 6\)"):
        read_dataset("scanobjectnn", tmp_path)
    np.savez(path, points=np.zeros(3))
    for content in (path.read_bytes(), path.read_bytes()[:-30], b"x"):
        path.write_bytes(content)
        with pytest.raises(FormatError, match="expected plain arrays 'data' and 'label'"):
            read_dataset("scanobjectnn", tmp_path)


def test_scanobjectnn_is_read_from_hdf5(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    points, labels = tiny_sets.scanobjectnn_arrays()
    path = tmp_path / "h5_files" / "main_split_nobg" / "test_objectdataset.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["data"], file["label"], file["mask"] = points, labels, labels
    shapes = read_dataset("scanobjectnn", tmp_path, split="obj-only")
    np.testing.assert_array_equal(np.stack(shapes.items), points)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"h5py.*\.npz file with the same arrays.*'cmcr\[h5\]'"):
        read_dataset("scanobjectnn", tmp_path, split="obj-only")


def test_objaverse_lvis_classes_are_in_alphabetical_order(tmp_path):
    tiny_sets.objaverse_lvis(tmp_path)
    shapes = read_dataset("objaverse-lvis", tmp_path)
    assert list(shapes.ids) == ["aaa", "bbb", "ccc"]
    assert list(shapes.classes) == ["Band Aid", "zebra"]
    np.testing.assert_array_equal(shapes.labels, [1, 0, 0])
    folder = tmp_path / "clouds" / "000-002"
    tiny_sets.cloud(folder / "aaa.ply")
    assert read_dataset("objaverse-lvis", tmp_path).items[0] == folder / "aaa.npz"
    (folder / "aaa.npz").unlink()
    np.save(folder / "aaa.npy", {"xyz": np.zeros((20, 3))}, allow_pickle=True)
    with pytest.raises(SampleError, match=r"aaa\.npy: not a plain array.*numpy.save"):
        read_dataset("objaverse-lvis", tmp_path)


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
    assert read_dataset("objaverse-lvis", tmp_path).content_hash == expected  # ccc, listed twice, keeps its first class


def test_esc50_reads_all_folds_or_one(tmp_path):
    tiny_sets.esc50(tmp_path)
    sounds = read_dataset("esc-50", tmp_path)
    assert list(sounds.classes) == ["dog", "chirping birds"]
    np.testing.assert_array_equal(sounds.labels, [0, 1, 1])
    fold = read_dataset("esc-50", tmp_path, split="fold5")
    assert (list(fold.ids), list(fold.classes)) == (["5-200-A-1.wav"], ["dog", "chirping birds"])


def test_imagenet_names_from_either_file(tmp_path):
    tiny_sets.imagenet(tmp_path)
    (tmp_path / "val/n01440764/._ILSVRC2012_val_00000000.JPEG").write_bytes(b"from macOS")
    pictures = read_dataset("imagenet", tmp_path)
    assert (len(pictures.items), list(pictures.classes)) == (100, ["tench", "goldfish"])
    np.testing.assert_array_equal(np.bincount(pictures.labels), [50, 50])
    assert pictures.ids[50] == "n01443537/ILSVRC2012_val_00000000.JPEG"
    np.testing.assert_array_equal(read_dataset("imagenet", tmp_path, limit=4).labels, [0, 0, 1, 1])
    (tmp_path / "LOC_synset_mapping.txt").unlink()
    index = {"0": ["n01440764", "tench"], "1": ["n01443537", "gold_fish"]}
    tiny_sets.as_json(tmp_path / "imagenet_class_index.json", index)
    assert list(read_dataset("imagenet", tmp_path).classes) == ["tench", "gold fish"]


def test_imagenet_without_all_pictures_of_a_class_is_incomplete(tmp_path):
    tiny_sets.imagenet(tmp_path, per_class=30)
    pictures = read_dataset("imagenet", tmp_path, allow_missing=True)
    assert (len(pictures.items), pictures.left_out) == (60, 40)
    with pytest.raises(ArtefactNotFoundError, match=r"40 of the 100 items.*val/n01440764/ \(30 of 50\)"):
        read_dataset("imagenet", tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("ave", "Annotations.txt", "Bark,aaaaaaaaaaa,good,0,3", "expected lines of Category&VideoID.*got 'Bark,aaa"),
        ("flickr-soundnet-boxes", "Annotations/10002.xml", XML.format("<t>1</t><a>2</a>"), "xmin, ymin, xmax and ymax"),
        ("flickr-soundnet-boxes", "Annotations/10002.xml", "<r>", "expected XML"),
        ("vgg-ss", "vggss.json", "[", "Invalid JSON"),
        ("vgg-ss", "vggss.json", {}, "valid array"),
        ("vgg-ss", "vggss.json", [{"file": "a", "class": "b"}], r"at 0\.bbox: Field required"),
        ("vgg-ss", "vggss.json", [{"file": "a", "bbox": [[0, 0, 1]]}], r"at 0\.bbox\.0\.3: Field required"),
        ("vgg-ss", "vggss.json", [{"file": "a", "bbox": [[0, 0, 1, "1"]]}], r"at 0\.bbox\.0\.3: .*valid number"),
        ("vgg-ss", "vggss.json", [{"file": "a", "bbox": []}] * 2, "1 of its 2 files are listed twice"),
        ("vgg-ss", "vggss.json", [], "name no items"),
        ("music-solo", "solotest.json", {"video.jpg": {"bbox": []}}, "expected frames named <video>/frame_<second>"),
        ("ex-vgg-ss", "vggss_test_plus_silent.csv", "a1,b2", r"row 1: expected 3 cells, got \['a1', 'b2'\]"),
        ("ex-vgg-ss", "vggss_test.csv", 'a1,"pigeon', "not a CSV file.*are its quotes closed"),
        ("coco", "dataset_coco.json", {"pictures": []}, "at images: Field required"),
        ("flickr30k", "results_20130124.token", "1007129816.jpg A man .", "expected lines of <picture>#<number>"),
        ("audiocaps", "test.csv", "youtube_id,caption\na,b", "expected the columns audiocap_id, .*got youtube_id"),
        ("audiocaps", "test.csv", "audiocap_id,youtube_id,start_time,caption\n1,a,0,b,c", "row 1: expected 4 cells"),
        ("modelnet40", "modelnet40_test.txt", "xbox_0001", "'xbox_0001' is of no class in modelnet40_shape_names"),
        ("esc-50", "meta/esc50.csv", f"{ESC_50}1-1-A-7.wav,1,7,cat", "expected targets 0, 1, 2"),
        ("esc-50", "meta/esc50.csv", f"{ESC_50}1-1-A-0.wav,1,0,cat", "with one category each"),
        ("esc-50", "meta/esc50.csv", f"{ESC_50}a.wav,1,zero,cat", "expected targets 0, 1, 2"),
        ("imagenet", "LOC_synset_mapping.txt", "n01440764", "expected lines of <WordNet id> <name>"),
    ],
)
def test_annotations_of_another_form_are_refused_with_file_and_place(tmp_path, name, file, content, message):
    tiny_sets.write(name, tmp_path)
    write = tiny_sets.text if isinstance(content, str) else tiny_sets.as_json
    write(tmp_path / file, content)
    split = "all" if file.endswith(".token") else None
    with pytest.raises(FormatError, match=message) as caught:
        read_dataset(name, tmp_path, split=split)
    assert str(tmp_path) in str(caught.value)

"""AVE, Flickr-SoundNet, VGG-SS, MUSIC-Solo and the extended sets: what each layout says."""

import json

import numpy as np
import pytest
import tiny_sets

from cmcr.data.audio import SoundClip, read_audio
from cmcr.data.images import read_image
from cmcr.data.videos import VideoFrame
from cmcr.errors import ArtefactNotFoundError, FormatError
from cmcr.evaluation.datasets import read_dataset


def test_ave_pairs_each_video_once(tmp_path):
    tiny_sets.ave(tmp_path)
    pairs = read_dataset("ave", tmp_path)
    assert pairs.name == "ave/all"
    assert pairs.modalities == ("audio", "image")
    assert list(pairs.first_ids) == ["RUhOCu3LNXM", "aaaaaaaaaaa", "-bbbbbbbbbb"]
    assert pairs.second[1] == VideoFrame(tmp_path / "AVE" / "aaaaaaaaaaa.mp4", 0.5)
    assert pairs.first[1] == tmp_path / "AVE" / "aaaaaaaaaaa.mp4"
    np.testing.assert_array_equal(pairs.positives.values, [0, 1, 2])
    assert round(np.asarray(read_image(pairs.second[0])).mean() / 20) == 5  # frame 5 of 10
    assert abs(np.median(read_audio(pairs.first[0], 44_100)) - 0.25) < 0.02
    test = read_dataset("ave", tmp_path, split="test")
    assert list(test.first_ids) == ["RUhOCu3LNXM", "-bbbbbbbbbb"]
    with pytest.raises(ArtefactNotFoundError, match=r"valSet\.txt is not there"):
        read_dataset("ave", tmp_path, split="val")


def test_ave_refuses_rows_of_another_form(tmp_path):
    tiny_sets.ave(tmp_path)
    tiny_sets.text(tmp_path / "testSet.txt", "Bark,aaaaaaaaaaa,good,0,3")
    with pytest.raises(FormatError, match=r"testSet\.txt line 1: expected Category&VideoID&.*, got 'Bark,aaa"):
        read_dataset("ave", tmp_path, split="test")


def test_flickr_soundnet_boxes_are_shares_of_256_pixels(tmp_path):
    tiny_sets.flickr_soundnet(tmp_path)
    grounded = read_dataset("flickr-soundnet-boxes", tmp_path)
    assert list(grounded.ids) == ["10000", "10002"]  # in the order of the ids; 10003 has no box with a size
    assert grounded.left_out == 1
    np.testing.assert_array_equal(grounded.boxes[0], [[0, 0, 0.5, 1], [0.25, 0, 0.5, 0.5], [0, 0, 1, 1]])
    assert grounded.images[1] == tmp_path / "frames" / "10002.jpg"
    assert grounded.sounds[1] == tmp_path / "audio" / "10002.wav"
    every = read_dataset("flickr-soundnet-boxes", tmp_path, split="all")
    assert list(every.ids) == ["10000", "10001", "10002"]
    np.testing.assert_array_equal(every.boxes[1], [[0.125, 0.25, 0.375, 0.5]] * 3)
    pairs = read_dataset("flickr-soundnet", tmp_path)
    assert (pairs.name, len(pairs.first), pairs.left_out) == ("flickr-soundnet/all", 4, 0)
    test = read_dataset("flickr-soundnet", tmp_path, split="test")
    assert list(test.first_ids) == ["10000", "10002", "10003"]
    (tmp_path / "metadata" / "flickr_test.csv").unlink()
    tiny_sets.text(tmp_path / "test_list.txt", "10002.png", "10000.png", "10003.png")  # the authors' own form
    assert read_dataset("flickr-soundnet", tmp_path, split="test").content_hash == test.content_hash


def test_flickr_soundnet_boxes_without_names_are_read_by_place(tmp_path):
    tiny_sets.flickr_soundnet(tmp_path)
    box = "<r><a><bbox><t>x</t><a>64</a><b>0</b><c>128</c><d>256</d></bbox></a><note/></r>"
    tiny_sets.text(tmp_path / "Annotations" / "10002.xml", box)
    grounded = read_dataset("flickr-soundnet-boxes", tmp_path)
    np.testing.assert_array_equal(grounded.boxes[1], [[0.25, 0, 0.5, 1]])
    tiny_sets.text(tmp_path / "Annotations" / "10002.xml", "<r><a><bbox><t>1</t><a>2</a></bbox></a></r>")
    with pytest.raises(FormatError, match=r"10002\.xml: expected a bbox with a type, xmin"):
        read_dataset("flickr-soundnet-boxes", tmp_path)
    tiny_sets.text(tmp_path / "Annotations" / "10002.xml", "<r>")
    with pytest.raises(FormatError, match=r"10002\.xml: not valid XML"):
        read_dataset("flickr-soundnet-boxes", tmp_path)


def test_flickr_soundnet_may_lie_in_a_folder_named_test(tmp_path):
    tiny_sets.flickr_soundnet(tmp_path / "test")
    (tmp_path / "test" / "metadata").rename(tmp_path / "metadata")
    assert len(read_dataset("flickr-soundnet-boxes", tmp_path).ids) == 2


def test_vgg_ss_boxes_are_cut_at_the_edge(tmp_path):
    tiny_sets.vgg_ss(tmp_path)
    grounded = read_dataset("vgg-ss-boxes", tmp_path)
    assert list(grounded.ids) == ["-0BIyqJj9ZU_000030", "00QQLLcny14_000083"]
    assert grounded.left_out == 1  # the clip whose only box has no width
    np.testing.assert_array_equal(grounded.boxes[0], [[0.25, 0.5, 0.75, 1.0]])
    np.testing.assert_array_equal(grounded.boxes[1], [[0, 0, 0.5, 0.5], [0, 0.5, 1, 1]])
    heard = read_dataset("vgg-ss", tmp_path, split="heard")
    assert (heard.name, list(heard.first_ids), heard.left_out) == ("vgg-ss/heard", ["00QQLLcny14_000083"], 1)


def test_vgg_ss_takes_the_annotated_frame_of_videos(tmp_path):
    tiny_sets.as_json(tmp_path / "metadata" / "vggss.json", tiny_sets.VGG_SS[:1])
    tiny_sets.video(tmp_path / "videos" / "-0BIyqJj9ZU_000030.mp4")
    grounded = read_dataset("vgg-ss-boxes", tmp_path)
    assert grounded.images == [VideoFrame(tmp_path / "videos" / "-0BIyqJj9ZU_000030.mp4", 5.0, "seconds")]
    assert grounded.sounds == [tmp_path / "videos" / "-0BIyqJj9ZU_000030.mp4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected JSON with an array outermost, got dict"),
        ([{"file": "a", "class": "b"}], r"entry 1: expected an object with 'bbox' \(list\)"),
        ([{"file": "a", "bbox": [[0, 0, 1]]}], "entry 1: expected boxes of four"),
        ([{"file": "a", "bbox": [[0, 0, 1, "x"]]}], "entry 1: expected boxes of four numbers"),
        ([{"file": "a", "bbox": []}] * 2, "entry 2: 'a' is there twice"),
        ([], "name no items"),
    ],
)
def test_vgg_ss_refuses_annotations_of_another_form(tmp_path, content, message):
    tiny_sets.vgg_ss(tmp_path)
    tiny_sets.as_json(tmp_path / "vggss.json", content)
    with pytest.raises(FormatError, match=message):
        read_dataset("vgg-ss-boxes", tmp_path)
    (tmp_path / "vggss.json").write_text("[", encoding="utf-8")
    with pytest.raises(FormatError, match=r"vggss\.json: not valid JSON"):
        read_dataset("vgg-ss", tmp_path)


def test_music_solo_boxes_are_corner_and_size_and_sounds_their_second(tmp_path):
    tiny_sets.music_solo(tmp_path)
    grounded = read_dataset("music-solo", tmp_path)
    assert list(grounded.ids) == ["1Ju4S0qeDqw_0_1000/frame_000/00000.jpg", "4Oy5VmaacaI_0_1000/frame_001/00030.jpg"]
    assert grounded.left_out == 1  # the frame without a box
    np.testing.assert_allclose(grounded.boxes[0], [[0.25, 0.25, 0.5, 0.75], [0.5, 0.5, 1.0, 0.75]])
    np.testing.assert_allclose(grounded.boxes[1], [[0.35, 0, 0.725, 0.5]])
    assert grounded.sounds[1] == SoundClip(tmp_path / "audio" / "4Oy5VmaacaI_0_1000.wav", 1.0, 1.0)
    assert grounded.images[1] == tmp_path / "video_frames" / grounded.ids[1]


def test_music_solo_is_read_in_its_later_form_too(tmp_path):
    entry = {"file": "4Oy5VmaacaI_001_00030", "class": "cello", "bbox": [0.35, 0.0, 0.25, 0.5]}
    tiny_sets.as_json(tmp_path / "metadata" / "music_solo.json", [entry])
    tiny_sets.picture(tmp_path / "frames" / "4Oy5VmaacaI_001_00030.jpg")
    tiny_sets.sound(tmp_path / "audio" / "4Oy5VmaacaI.wav", seconds=2)
    grounded = read_dataset("music-solo", tmp_path)
    np.testing.assert_allclose(grounded.boxes[0], [[0.35, 0, 0.6, 0.5]])
    assert grounded.sounds == [SoundClip(tmp_path / "audio" / "4Oy5VmaacaI.wav", 1.0, 1.0)]
    tiny_sets.as_json(tmp_path / "metadata" / "music_solo.json", [{**entry, "file": "video"}])
    with pytest.raises(FormatError, match=r"expected the file <YouTube id>_<second>_<frame>, got 'video'"):
        read_dataset("music-solo", tmp_path)
    tiny_sets.as_json(tmp_path / "solotest.json", {"video.jpg": {"bbox": []}})
    with pytest.raises(FormatError, match=r"entry 'video\.jpg': expected <video>/frame_<second>"):
        read_dataset("music-solo", tmp_path)


@pytest.mark.parametrize(("name", "stem"), [("ex-vgg-ss", "vggss"), ("ex-flickrnet", "flickr")])
def test_extended_sets_hold_true_pairs_and_false_ones(tmp_path, name, stem):
    tiny_sets.extended(tmp_path, stem)
    judged = read_dataset(name, tmp_path)
    assert list(judged.ids) == ["a1 a1", "b2 b2", "a1 b2", "c3 a1"]  # the row that is there twice counts once
    np.testing.assert_array_equal(judged.present, [True, True, False, False])
    assert judged.images[3] == tmp_path / "frames" / "c3.jpg"
    assert judged.sounds[3] == tmp_path / "audio" / "a1.wav"
    digest = judged.content_hash
    (tmp_path / "frames").rename(tmp_path / "extend_frames")
    (tmp_path / "audio").rename(tmp_path / "extend_audio")
    assert read_dataset(name, tmp_path).content_hash == digest


def test_published_rows_survive_quotes(tmp_path):
    tiny_sets.extended(tmp_path, "vggss")
    tiny_sets.text(tmp_path / "vggss_test.csv", 'a1,"pigeon, dove cooing"')
    assert read_dataset("ex-vgg-ss", tmp_path).present.sum() == 1
    tiny_sets.text(tmp_path / "vggss_test_plus_silent.csv", "a1,b2")
    with pytest.raises(FormatError, match=r"plus_silent\.csv row 1: expected at least 3 cells, got \['a1', 'b2'\]"):
        read_dataset("ex-vgg-ss", tmp_path)
    tiny_sets.text(tmp_path / "vggss_test.csv", 'a1,"pigeon')
    with pytest.raises(FormatError, match=r"not a CSV file.*are its quotes closed"):
        read_dataset("ex-vgg-ss", tmp_path)


def test_annotations_with_a_byte_order_mark_are_read(tmp_path):
    tiny_sets.vgg_ss(tmp_path)
    marked = "\ufeff" + json.dumps(tiny_sets.VGG_SS)
    (tmp_path / "vggss.json").write_text(marked, encoding="utf-8")
    assert len(read_dataset("vgg-ss", tmp_path).first) == 2


def test_of_two_files_of_one_name_the_published_ending_wins(tmp_path):
    tiny_sets.vgg_ss(tmp_path)
    name = tiny_sets.VGG_SS[0]["file"]
    tiny_sets.picture(tmp_path / "frames" / f"{name}.png")
    (tmp_path / "audio" / f"{name}.mp3").write_bytes(b"x")
    pairs = read_dataset("vgg-ss", tmp_path, limit=1)
    assert (pairs.first[0].suffix, pairs.second[0].suffix) == (".wav", ".jpg")
    (tmp_path / "frames" / f"{name}.jpg").unlink()
    assert read_dataset("vgg-ss", tmp_path, limit=1).second[0].suffix == ".png"

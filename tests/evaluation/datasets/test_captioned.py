"""COCO, Flickr30k, AudioCaps and Clotho: items with captions."""

import numpy as np
import pytest
import tiny_sets

from cmcr.errors import FormatError
from cmcr.evaluation.datasets import read_dataset


def test_coco_takes_the_first_five_captions_of_the_karpathy_split(tmp_path):
    tiny_sets.coco(tmp_path)
    pairs = read_dataset("coco", tmp_path)
    assert (pairs.name, pairs.modalities) == ("coco/karpathy-test", ("image", "text"))
    assert pairs.second == [*(f"a cat {n}" for n in range(5)), *(f"a dog {n} " for n in range(5))]
    assert pairs.first[1] == tmp_path / "val2014" / "COCO_val2014_000000000074.jpg"
    assert pairs.second_ids[5] == "COCO_val2014_000000000074.jpg#0"
    np.testing.assert_array_equal(pairs.positives.counts, [5, 5])
    back = pairs.turned()
    assert back.modalities == ("text", "image")
    assert back.first == pairs.second
    np.testing.assert_array_equal(back.positives.values, [0] * 5 + [1] * 5)
    assert back.turned().content_hash == pairs.content_hash
    assert back.content_hash != pairs.content_hash


def test_coco_of_2017_takes_captions_by_rising_id(tmp_path):
    tiny_sets.coco(tmp_path)
    pairs = read_dataset("coco", tmp_path, split="val2017")
    assert list(pairs.first_ids) == ["000000000139.jpg", "000000000285.jpg"]
    assert pairs.second == ["first", "second", "third", "a bear"]
    np.testing.assert_array_equal(pairs.positives.counts, [3, 1])


def test_captions_of_white_space_are_left_out_and_counted(tmp_path):
    tiny_sets.coco(tmp_path)
    images = [
        tiny_sets.karpathy_image("COCO_val2014_000000000042.jpg", "test", ["a", " ", "", "b"], filepath="val2014")
    ]
    tiny_sets.as_json(tmp_path / "dataset_coco.json", {"images": images})
    pairs = read_dataset("coco", tmp_path)
    assert (pairs.second, pairs.left_out) == (["a", "b"], 2)
    assert list(pairs.second_ids) == ["COCO_val2014_000000000042.jpg#0", "COCO_val2014_000000000042.jpg#3"]
    images[0]["sentences"] = [{"raw": " "}]
    tiny_sets.as_json(tmp_path / "dataset_coco.json", {"images": images})
    with pytest.raises(FormatError, match=r"COCO_val2014_000000000042\.jpg of coco has no caption"):
        read_dataset("coco", tmp_path)


def test_a_karpathy_file_of_another_form_is_refused(tmp_path):
    tiny_sets.coco(tmp_path)
    with pytest.raises(FormatError, match=r"dataset_coco\.json: holds no picture of the split 'val'"):
        read_dataset("coco", tmp_path, split="karpathy-val")
    tiny_sets.as_json(tmp_path / "dataset_coco.json", {"pictures": []})
    with pytest.raises(FormatError, match=r"expected an object with 'images' \(list\)"):
        read_dataset("coco", tmp_path)


def test_flickr30k_by_split_and_as_a_whole(tmp_path):
    tiny_sets.flickr30k(tmp_path)
    pairs = read_dataset("flickr30k", tmp_path)
    assert list(pairs.first_ids) == ["1007129816.jpg", "1009434119.jpg"]
    assert pairs.second[0] == "a man 0"
    every = read_dataset("flickr30k", tmp_path, split="all")
    assert every.second[-1] == "Two men ."
    np.testing.assert_array_equal(every.positives.counts, [5, 1])
    tiny_sets.text(tmp_path / "results_20130124.token", "1007129816.jpg A man .")
    with pytest.raises(FormatError, match=r"token line 1: expected <picture>#<number>, a tab and a caption"):
        read_dataset("flickr30k", tmp_path, split="all")


def test_audiocaps_finds_clips_by_each_common_name(tmp_path):
    tiny_sets.audiocaps(tmp_path)
    pairs = read_dataset("audiocaps", tmp_path)
    assert pairs.modalities == ("audio", "text")
    assert list(pairs.first_ids) == ["abcdefghijk_30", "-1234567890_0", "ZZZZZZZZZZZ_10"]
    assert [path.name for path in pairs.first] == ["abcdefghijk_30.wav", "Y-1234567890.wav", "7.wav"]
    assert pairs.second[5:] == ["Rain, and thunder", "Speech"]
    np.testing.assert_array_equal(pairs.positives.counts, [5, 1, 1])


def test_audiocaps_refuses_another_table(tmp_path):
    tiny_sets.audiocaps(tmp_path)
    tiny_sets.text(tmp_path / "test.csv", "youtube_id,caption", "a,b")
    with pytest.raises(FormatError, match=r"test\.csv: expected the columns audiocap_id, .*'audiocap_id' is not among"):
        read_dataset("audiocaps", tmp_path)
    tiny_sets.text(tmp_path / "test.csv", "audiocap_id,youtube_id,start_time,caption", "1,a,0,b,c")
    with pytest.raises(FormatError, match=r"test\.csv row 1: expected 4 cells, got 5"):
        read_dataset("audiocaps", tmp_path)


@pytest.mark.parametrize("place", ["evaluation", "clotho_audio_evaluation", "clotho_audio_evaluation/evaluation"])
def test_clotho_wherever_its_archive_was_unpacked(tmp_path, place):
    tiny_sets.clotho(tmp_path)
    if place != "evaluation":
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / "evaluation").rename(tmp_path / place)
    pairs = read_dataset("clotho", tmp_path)
    assert list(pairs.first_ids) == ["Rain (1).wav", "Été.wav"]
    assert pairs.first[1] == tmp_path / place / "Été.wav"
    assert pairs.second == ["Rain, falling", *"bcdefghij"]

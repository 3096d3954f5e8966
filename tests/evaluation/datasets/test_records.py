"""Records refuse what does not fit together; their digest sees every part."""

from dataclasses import replace

import numpy as np
import pytest

from cmcr.data.audio import SoundClip
from cmcr.data.videos import VideoFrame
from cmcr.errors import ConfigError, DimensionError, ReadError, TooFewRowsError
from cmcr.evaluation.datasets import ClassificationRecord, CounterfactualRecord, LocalizationRecord, RetrievalRecord
from cmcr.evaluation.metrics import PerQuery

BOX = np.array([[0.0, 0.0, 0.5, 1.0]])


@pytest.fixture
def records(tmp_path):
    files = []
    for number in range(2):
        files.append(tmp_path / f"{number}.bin")
        files[-1].write_bytes(bytes(number + 1))
    positives = PerQuery.several([[0, 2], [1]])
    return {
        "pairs": RetrievalRecord(
            "p", ("image", "text"), files, ["x", "y", "z"], ["a", "b"], ["d", "e", "f"], positives
        ),
        "labelled": ClassificationRecord("l", "image", files, ["a", "b"], np.array([0, 1]), ["cat", "dog"]),
        "grounded": LocalizationRecord("g", [VideoFrame(f) for f in files], files, ["a", "b"], [BOX, BOX]),
        "judged": CounterfactualRecord(
            "j", files, [SoundClip(f, 0, 1) for f in files], ["a", "b"], np.array([True, False])
        ),
    }


def test_digests_are_the_same_on_every_system(records):
    """Written down once, so that a change of what is hashed does not go unnoticed."""
    assert {name: record.content_hash[:12] for name, record in records.items()} == DIGESTS


DIGESTS = {
    "pairs": "12350573f864",
    "labelled": "7feb9845b6de",
    "grounded": "d7f31e697d08",
    "judged": "ca5b20451e10",
}


def test_turning_gives_each_second_item_its_first_ones(records):
    turned = replace(records["pairs"], positives=PerQuery.several([[0, 2], [1, 2]])).turned()
    assert (turned.first, turned.first_ids) == (["x", "y", "z"], ["d", "e", "f"])
    np.testing.assert_array_equal(turned.positives.values, [0, 1, 0, 1])
    np.testing.assert_array_equal(turned.positives.starts, [0, 1, 2, 4])
    with pytest.raises(TooFewRowsError, match="1 of 3 queries have no positive"):
        replace(records["pairs"], positives=PerQuery.several([[0], [1]])).turned()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pairs", {"positives": PerQuery.several([[0], [1, 2]])}),
        ("pairs", {"second": ["x", "y", "w"]}),
        ("pairs", {"second_ids": ["d", "e", "g"]}),
        ("pairs", {"name": "q"}),
        ("pairs", {"left_out": 1}),
        ("labelled", {"labels": np.array([1, 1])}),
        ("labelled", {"classes": ["cat", "cow"]}),
        ("grounded", {"boxes": [BOX, BOX / 2]}),
        ("grounded", {"boxes": [BOX, np.concatenate([BOX, BOX])]}),
        ("judged", {"present": np.array([True, True])}),
    ],
)
def test_the_digest_sees_every_part(records, name, change):
    assert replace(records[name], **change).content_hash != records[name].content_hash


def test_the_moment_of_a_frame_and_the_part_of_a_sound_count(records):
    grounded, judged = records["grounded"], records["judged"]
    later = [VideoFrame(image.path, 0.25) for image in grounded.images]
    assert replace(grounded, images=later).content_hash != grounded.content_hash
    shorter = [SoundClip(sound.path, 0, 0.5) for sound in judged.sounds]
    assert replace(judged, sounds=shorter).content_hash != judged.content_hash


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("pairs", {"first_ids": ["a"]}, DimensionError, "p: expected 1 first, got 2"),
        ("pairs", {"second_ids": ["d", "d", "f"]}, ConfigError, "p: the id 'd' is there more than once"),
        ("pairs", {"positives": PerQuery.one(np.array([0, 3]))}, DimensionError, r"must be rows 0\.\.2 of the second"),
        ("pairs", {"positives": PerQuery.one(np.array([0]))}, DimensionError, "p: expected 2 positives, got 1"),
        ("labelled", {"labels": np.array([0, 2])}, DimensionError, r"l: labels must be 0\.\.1, got 0\.\.2"),
        ("labelled", {"labels": np.array([0])}, DimensionError, "l: expected 2 labels, got 1"),
        ("grounded", {"boxes": [BOX]}, DimensionError, "g: expected 2 boxes, got 1"),
        ("grounded", {"boxes": [BOX, BOX[:0]]}, DimensionError, r"g: boxes of b: expected \(b, 4\)"),
        ("grounded", {"boxes": [BOX, BOX * 3]}, DimensionError, "g: boxes of b: expected"),
        ("grounded", {"boxes": [BOX[:, ::-1], BOX]}, DimensionError, "g: boxes of a: expected"),
        ("judged", {"present": np.array([True])}, DimensionError, "j: expected 2 present, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(records, name, change, error, message):
    with pytest.raises(error, match=message):
        replace(records[name], **change)


def test_a_file_that_vanished_is_named(records):
    records["labelled"].items[1].unlink()
    with pytest.raises(ReadError, match=r"could not read.*1\.bin"):
        _ = records["labelled"].content_hash

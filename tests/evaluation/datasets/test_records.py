"""Records refuse what does not fit together; their hash covers every part."""

from dataclasses import replace

import numpy as np
import pytest

from cmcr.data.audio import SoundClip
from cmcr.data.videos import VideoFrame
from cmcr.errors import ConfigError, DimensionError, ReadError
from cmcr.evaluation.datasets.records import (
    ClassificationRecord,
    CounterfactualRecord,
    LocalizationRecord,
    RetrievalRecord,
)
from cmcr.evaluation.metrics import PerQuery

BOX = np.array([[0.0, 0.0, 0.5, 1.0]])


@pytest.fixture
def records(tmp_path):
    files = [tmp_path / f"{number}.bin" for number in range(2)]
    for number, file in enumerate(files):
        file.write_bytes(bytes(number + 1))
    frames, clips = [VideoFrame(file) for file in files], [SoundClip(str(file), 0, 1) for file in files]
    positives = PerQuery.several([[0, 2], [1]])
    return {
        "r": RetrievalRecord("r", ("image", "text"), files, ["x", "y", "z"], ["a", "b"], ["d", "e", "f"], positives),
        "c": ClassificationRecord("c", "image", files, ["a", "b"], np.array([0, 1]), ["cat", "dog"]),
        "l": LocalizationRecord("l", frames, files, ["a", "b"], [BOX, BOX]),
        "k": CounterfactualRecord("k", files, clips, ["a", "b"], np.array([True, False])),
    }


def test_hashes_are_the_same_on_every_system_and_in_every_folder(records):
    hashes = {name: record.content_hash[:12] for name, record in records.items()}
    assert hashes == {"r": "1638f4641c3f", "c": "ccc2f69997a2", "l": "4d4795b36016", "k": "b19604355e51"}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("r", {"positives": PerQuery.several([[0], [1, 2]])}),
        ("r", {"second": ["x", "y", "w"]}),
        ("r", {"second_ids": ["d", "e", "g"]}),
        ("r", {"left_out": 1}),
        ("c", {"labels": np.array([1, 1])}),
        ("c", {"classes": ["cat", "cow"]}),
        ("c", {"items": [np.zeros(3), np.zeros((3, 1))]}),
        ("c", {"items": [{"array": np.zeros(3), "sampling_rate": rate} for rate in (8, 9)]}),
        ("l", {"boxes": [BOX, BOX / 2]}),
        ("l", lambda record: {"images": [replace(image, at_seconds=0.25) for image in record.images]}),
        ("k", lambda record: {"sounds": [replace(sound, length_seconds=0.5) for sound in record.sounds]}),
        ("k", {"present": np.array([True, True])}),
    ],
)
def test_the_hash_covers_every_part(records, name, change):
    changed = change(records[name]) if callable(change) else change
    assert replace(records[name], **changed).content_hash != records[name].content_hash


def test_a_hash_of_files_that_are_gone_is_refused(records):
    records["c"].items[1].unlink()
    with pytest.raises(ReadError, match=r"1\.bin"):
        _ = records["c"].content_hash


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("r", {"first_ids": ["a"]}, DimensionError, "r: expected 1 first, got 2"),
        ("r", {"second_ids": ["d", "d", "f"]}, ConfigError, "r: duplicate id 'd'"),
        ("r", {"positives": PerQuery.one(np.array([0, 3]))}, DimensionError, r"expected 0\.\.2, got 0\.\.3"),
        ("c", {"labels": np.array([0, 2])}, DimensionError, r"labels: expected 0\.\.1, got 0\.\.2"),
        ("c", {"labels": np.array([0])}, DimensionError, "expected 2 labels, got 1"),
        ("l", {"boxes": [BOX, BOX[:0]]}, DimensionError, r"boxes of b: expected \(b, 4\)"),
        ("l", {"boxes": [BOX, BOX * 3]}, DimensionError, "boxes of b"),
        ("l", {"boxes": [BOX[:, ::-1], BOX]}, DimensionError, "boxes of a"),
        ("k", {"present": np.array([True])}, DimensionError, "expected 2 present, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(records, name, change, error, message):
    with pytest.raises(error, match=message):
        replace(records[name], **change)

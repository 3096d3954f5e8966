"""What holds for every data set: the digest, what is said of what is missing, limits, splits, and that spaces read it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_sets

import cmcr
from cmcr.data.audio import SoundClip
from cmcr.data.videos import VideoFrame
from cmcr.errors import ArtefactNotFoundError, ConfigError
from cmcr.evaluation.datasets import (
    LAYOUTS,
    ClassificationRecord,
    CounterfactualRecord,
    LocalizationRecord,
    RetrievalRecord,
    read_dataset,
)

NAMES = sorted(tiny_sets.WRITERS)
SPACES = {"text": "mini-clip", "image": "mini-clip", "audio": "mini-clap", "point_cloud": "mini-ulip"}
WITHOUT_FILES = {"scanobjectnn"}  # its items lie in one file


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return {name: tiny_sets.write(name, root / name) for name in NAMES}


def columns(record):
    """Modalities with their items."""
    if isinstance(record, RetrievalRecord):
        return [(record.modalities[0], record.first), (record.modalities[1], record.second)]
    if isinstance(record, ClassificationRecord):
        return [(record.modality, record.items)]
    return [("image", record.images), ("audio", record.sounds)]


def file_of(item):
    if isinstance(item, VideoFrame | SoundClip):
        return Path(item.path)
    return item if isinstance(item, Path) else None


def test_every_data_set_has_a_tiny_one():
    assert set(NAMES) == set(LAYOUTS)
    assert len(LAYOUTS) == 17


@pytest.mark.parametrize("name", NAMES)
def test_the_layout_says_what_is_compared(sets, name):
    record = read_dataset(name, sets[name])
    words = ["text"] if isinstance(record, ClassificationRecord) else []  # of its classes
    assert sorted(LAYOUTS[name].modalities) == sorted([*(modality for modality, _ in columns(record)), *words])


@pytest.mark.parametrize("name", NAMES)
def test_spaces_read_the_items(sets, name):
    if name == "imagenet":  # its other pictures are a byte each
        tiny_sets.picture(sets[name] / "val/n01440764/ILSVRC2012_val_00000000.JPEG")
    record = read_dataset(name, sets[name])
    for modality, items in columns(record):
        few = items[:1] if name == "imagenet" else items
        rows = cmcr.space(SPACES[modality]).encode(["seven"] if modality == "text" else list(few), modality=modality)
        assert np.isfinite(rows).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_digest_knows_the_content_and_not_the_place(sets, name, tmp_path):
    first = read_dataset(name, sets[name])
    moved = tmp_path / "elsewhere" / "far"
    shutil.copytree(sets[name], moved)
    again = read_dataset(name, moved)
    assert len(first.content_hash) == 64
    assert again.content_hash == first.content_hash
    files = [file for _, items in columns(again) for file in map(file_of, items) if file is not None]
    if name in WITHOUT_FILES:
        return
    with files[0].open("ab") as changed:
        changed.write(b"\n")
    assert read_dataset(name, moved).content_hash != first.content_hash


def ids_of(record):
    return list(record.first_ids if isinstance(record, RetrievalRecord) else record.ids)


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITHOUT_FILES))
def test_files_that_are_not_there_are_counted_and_named(sets, name, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(sets[name], folder)
    whole = read_dataset(name, folder)
    digest = whole.content_hash
    victim = next(file for _, items in columns(whole) for file in map(file_of, items) if file is not None)
    victim.unlink()
    with pytest.raises(
        ArtefactNotFoundError, match=r"^\[Errno 2\] \d+ of the \d+ items.*are not there: .*allow_missing"
    ) as said:
        read_dataset(name, folder)
    assert name in str(said.value)
    assert str(folder) in str(said.value)
    rest = read_dataset(name, folder, allow_missing=True)
    gone = len(ids_of(whole)) - len(ids_of(rest))
    assert gone in ((1, 2) if isinstance(whole, CounterfactualRecord) else (1,))  # a sound may stand in two pairs there
    assert rest.left_out == whole.left_out + gone
    assert set(ids_of(rest)) < set(ids_of(whole))
    assert rest.content_hash != digest


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_told_the_layout_and_the_source(name, tmp_path):
    with pytest.raises(ArtefactNotFoundError, match=r"is not there\. The layout of") as caught:
        read_dataset(name, tmp_path)
    said = str(caught.value)
    assert LAYOUTS[name].tree in said
    assert f"It is published by {LAYOUTS[name].source}" in said
    assert "docs/datasets.md" in said
    with pytest.raises(ArtefactNotFoundError, match="there is no such folder"):
        read_dataset(name, tmp_path / "nowhere")


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_takes_evenly_spaced_items(sets, name):
    whole, one = read_dataset(name, sets[name]), read_dataset(name, sets[name], limit=1)
    everything = read_dataset(name, sets[name], limit=10_000)
    assert everything.content_hash == whole.content_hash
    assert ids_of(one) == ids_of(whole)[:1]
    assert one.left_out == whole.left_out
    with pytest.raises(ConfigError, match="limit: expected at least 1, got 0"):
        read_dataset(name, sets[name], limit=0)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_split_is_refused_with_the_known_ones(sets, name):
    with pytest.raises(ConfigError, match=f"unknown split of {name} 'nosuch'.*Known: .*{LAYOUTS[name].splits[0]}"):
        read_dataset(name, sets[name], split="nosuch")


def test_an_unknown_data_set_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown data set 'modelnet'.*Did you mean 'modelnet40'"):
        read_dataset("modelnet", ".")


def test_kinds_of_records(sets):
    kinds = {
        RetrievalRecord: {"ave", "flickr-soundnet", "vgg-ss", "coco", "flickr30k", "audiocaps", "clotho"},
        ClassificationRecord: {"modelnet40", "scanobjectnn", "objaverse-lvis", "esc-50", "imagenet"},
        LocalizationRecord: {"flickr-soundnet-boxes", "vgg-ss-boxes", "music-solo"},
        CounterfactualRecord: {"ex-vgg-ss", "ex-flickrnet"},
    }
    for kind, names in kinds.items():
        assert {name for name in NAMES if type(read_dataset(name, sets[name])) is kind} == names

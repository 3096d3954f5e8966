"""The contract of every data set: what it reads, its hash, limits, and what is reported of a missing file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_sets

import cmcr
from cmcr.errors import ArtefactNotFoundError, ConfigError
from cmcr.evaluation.datasets import (
    LAYOUTS,
    ClassificationRecord,
    CounterfactualRecord,
    LocalizationRecord,
    RetrievalRecord,
    read_dataset,
)

KINDS = {
    RetrievalRecord: ["ave", "flickr-soundnet", "vgg-ss", "coco", "flickr30k", "audiocaps", "clotho"],
    ClassificationRecord: ["modelnet40", "scanobjectnn", "objaverse-lvis", "esc-50", "imagenet"],
    LocalizationRecord: ["flickr-soundnet-boxes", "vgg-ss-boxes", "music-solo"],
    CounterfactualRecord: ["ex-vgg-ss", "ex-flickrnet"],
}
NAMES = sorted(LAYOUTS)
SPACES = {"text": "mini-clip", "image": "mini-clip", "audio": "mini-clap", "point_cloud": "mini-ulip"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    return {name: tiny_sets.write(name, root / name) for name in NAMES}


def columns(record):
    """Modalities with their items."""
    if isinstance(record, RetrievalRecord):
        return dict(zip(record.modalities, (record.first, record.second), strict=True))
    if isinstance(record, ClassificationRecord):
        return {record.modality: record.items, "text": record.classes}
    return {"image": record.images, "audio": record.sounds}


def ids_of(record):
    return list(record.first_ids if isinstance(record, RetrievalRecord) else record.ids)


def a_file_of(record):
    items = (getattr(item, "path", item) for items in columns(record).values() for item in items)
    return next((item for item in items if isinstance(item, Path)), None)


def test_every_kind_of_data_set_is_here():
    assert sorted(name for names in KINDS.values() for name in names) == NAMES == sorted(tiny_sets.WRITERS)
    assert len(NAMES) == 17


@pytest.mark.parametrize("name", NAMES)
def test_a_record_is_of_its_kind_and_spaces_read_its_items(sets, name):
    record = read_dataset(name, sets[name])
    assert name in KINDS[type(record)]
    assert record.name == f"{name}/{LAYOUTS[name].splits[0]}"
    assert set(columns(record)) == set(LAYOUTS[name].modalities)
    for modality, items in columns(record).items():
        rows = cmcr.space(SPACES[modality]).encode(
            ["seven"] if modality == "text" else list(items[:2]), modality=modality
        )
        assert np.isfinite(rows).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_hash_depends_on_the_content_and_a_missing_file_is_counted_and_named(sets, name, tmp_path):
    whole = read_dataset(name, sets[name])
    moved = shutil.copytree(sets[name], tmp_path / "elsewhere" / "far")
    again = read_dataset(name, moved)
    assert again.content_hash == whole.content_hash
    file = a_file_of(again)
    if file is None:  # ScanObjectNN is one file
        return
    file.write_bytes(file.read_bytes() + b"\n")
    assert read_dataset(name, moved).content_hash != whole.content_hash
    file.unlink()
    with pytest.raises(
        ArtefactNotFoundError, match=rf"of the \d+ items of {name} are missing: .*allow_missing.*{moved}"
    ):
        read_dataset(name, moved)
    rest = read_dataset(name, moved, allow_missing=True)
    gone = len(ids_of(whole)) - len(ids_of(rest))
    assert gone == (2 if isinstance(whole, CounterfactualRecord) else 1)  # a picture is in two of its pairs
    assert rest.left_out == whole.left_out + gone
    assert set(ids_of(rest)) < set(ids_of(whole))


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_takes_evenly_spaced_items(sets, name):
    whole, one = read_dataset(name, sets[name]), read_dataset(name, sets[name], limit=1)
    assert read_dataset(name, sets[name], limit=10_000).content_hash == whole.content_hash
    assert ids_of(one) == ids_of(whole)[:1]
    assert one.left_out == whole.left_out


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_an_error_with_the_layout(name, tmp_path):
    with pytest.raises(ArtefactNotFoundError, match=f"is missing. Layout of {name}") as caught:
        read_dataset(name, tmp_path)
    assert LAYOUTS[name].description in str(caught.value)
    assert "Published by" in LAYOUTS[name].description
    with pytest.raises(ArtefactNotFoundError, match="no such folder"):
        read_dataset(name, tmp_path / "nowhere")


def test_unknown_names_splits_and_limits_are_refused():
    with pytest.raises(ConfigError, match=r"unknown data set 'modelnet'.*Did you mean 'modelnet40'"):
        read_dataset("modelnet", ".")
    with pytest.raises(ConfigError, match=r"unknown split of vgg-ss 'nosuch'.*Known: all, heard, unheard"):
        read_dataset("vgg-ss", ".", split="nosuch")
    with pytest.raises(ConfigError, match="limit: expected at least 1, got 0"):
        read_dataset("vgg-ss", ".", limit=0)

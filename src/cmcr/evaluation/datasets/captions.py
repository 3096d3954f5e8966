"""Items with captions, read as pairs: COCO, Flickr30k, AudioCaps and Clotho.

Of each item the first five captions are taken, as published figures do (some pictures of COCO have six or seven), and left
as they are, down to the last space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmcr.errors import FormatError
from cmcr.evaluation.datasets.layout import (
    SOUNDS,
    VIDEOS,
    DataFolder,
    Item,
    files_by_stem,
    published_as,
    read_csv,
    read_json,
)
from cmcr.evaluation.datasets.records import RetrievalRecord
from cmcr.evaluation.metrics import PerQuery

_CAPTIONS = 5


def _record(data: DataFolder, items: Sequence[Item[list[str]]]) -> RetrievalRecord:
    """Pair items with captions. Captions of white space, which no space encodes, are left out and counted."""
    ids, files, captions, left_out = data.keep(items)
    texts: dict[str, str] = {}  # by id
    rows = []
    for name, given in zip(ids, captions, strict=True):
        used = {f"{name}#{number}": text for number, text in enumerate(given[:_CAPTIONS]) if text.strip()}
        if not used:
            raise FormatError(f"{data.path}: {name} of {data.layout.name} has no caption.")
        left_out += len(given[:_CAPTIONS]) - len(used)
        rows.append(np.arange(len(used)) + len(texts))
        texts |= used
    positives = PerQuery.several(rows)
    return RetrievalRecord(
        data.name, data.layout.modalities, files, list(texts.values()), ids, list(texts), positives, left_out
    )


@dataclass(slots=True)
class _Sentence:
    raw: str


@dataclass(slots=True)
class _KarpathyImage:
    filename: str
    split: str
    sentences: list[_Sentence]
    filepath: str = ""  # the folder, for COCO only


@dataclass(slots=True)
class _Karpathy:
    """`dataset_coco.json` and `dataset_flickr30k.json` of Karpathy and Fei-Fei (CVPR 2015)."""

    images: list[_KarpathyImage]


def _karpathy(data: DataFolder, path: Path, split: str, pictures: Path) -> RetrievalRecord:
    """Read the pictures of one split, in the order of the file; their `filepath` starts at `pictures`."""
    items = [
        data.item(image.filename, pictures / image.filepath / image.filename, [one.raw for one in image.sentences])
        for image in read_json(path, _Karpathy).images
        if image.split == split
    ]
    if not items:
        raise FormatError(f"{path}: holds no picture of the split {split!r}.")
    return _record(data, items)


@dataclass(slots=True)
class _CocoImage:
    id: int
    file_name: str


@dataclass(slots=True)
class _CocoCaption:
    id: int
    image_id: int
    caption: str


@dataclass(slots=True)
class _CocoCaptions:
    images: list[_CocoImage]
    annotations: list[_CocoCaption]


@published_as("coco", ("image", "text"), splits=("karpathy-test", "karpathy-val", "val2017"))
def coco(data: DataFolder) -> RetrievalRecord:
    """Pictures with captions; `karpathy-test` is the 5k test set of published figures.

    dataset_coco.json    for splits 'karpathy-test' and 'karpathy-val'
    val2014/COCO_val2014_<id>.jpg
    annotations/captions_val2017.json, val2017/<id>.jpg    for split 'val2017'

    Published by cocodataset.org (Lin et al., ECCV 2014; Chen et al., 2015); the split by Karpathy and Fei-Fei, Deep
    Visual-Semantic Alignments, CVPR 2015.
    """
    if data.split != "val2017":
        return _karpathy(data, data.find("dataset_coco.json"), data.split.removeprefix("karpathy-"), data.path)
    content = read_json(data.find("annotations/captions_val2017.json", "captions_val2017.json"), _CocoCaptions)
    pictures = data.find("val2017")
    captions: dict[int, list[str]] = {image.id: [] for image in content.images}
    for one in sorted(content.annotations, key=lambda one: one.id):  # the file has no other order
        captions.setdefault(one.image_id, []).append(one.caption)
    images = sorted(content.images, key=lambda image: image.file_name)
    return _record(data, [data.item(one.file_name, pictures / one.file_name, captions[one.id]) for one in images])


@published_as("flickr30k", ("image", "text"), splits=("test", "val"))
def flickr30k(data: DataFolder) -> RetrievalRecord:
    """Pictures with five captions each; `test` is the 1k test set of published figures.

    dataset_flickr30k.json
    flickr30k-images/<picture>    or flickr30k_images/, images/

    Published by Young et al., From Image Descriptions to Visual Denotations, TACL 2014; the split by Karpathy and Fei-Fei,
    Deep Visual-Semantic Alignments, CVPR 2015.
    """
    pictures = data.find("flickr30k-images", "flickr30k_images", "images")
    return _karpathy(data, data.find("dataset_flickr30k.json"), data.split, pictures)


@published_as("audiocaps", ("audio", "text"), splits=("test", "val", "train"))
def audiocaps(data: DataFolder) -> RetrievalRecord:
    """Ten-second sounds with captions, five each in the test set.

    test.csv, val.csv, train.csv or dataset/<split>.csv    audiocap_id, youtube_id, start_time, caption
    audio/ or <split>/ or audio/<split>/    ten-second clips, named <youtube_id>_<start_time>, <youtube_id>,
        Y<youtube_id> or <audiocap_id>, with .wav, .flac, .mp3, .mp4 or the like

    Published by Kim et al., AudioCaps: Generating Captions for Audios in the Wild, NAACL 2019: the lists; the sounds are on
    YouTube, and named by whoever fetched them.
    """
    table = data.find(f"{data.split}.csv", f"dataset/{data.split}.csv")
    sounds = files_by_stem(data.find(f"audio/{data.split}", "audio", data.split), (*SOUNDS, *VIDEOS))
    captions: dict[str, list[str]] = {}
    files: dict[str, Path] = {}
    for number, video, start, caption in read_csv(table, "audiocap_id", "youtube_id", "start_time", "caption"):
        video = video.strip()
        name = f"{video}_{start.strip()}"  # a clip is a video and the second at which it begins
        captions.setdefault(name, []).append(caption)
        for one in (name, video, f"Y{video}", number.strip()):
            if one in sounds:
                files.setdefault(name, sounds[one])
    return _record(data, [Item(name, f"audio/{name}.wav", files.get(name), texts) for name, texts in captions.items()])


@published_as("clotho", ("audio", "text"), splits=("evaluation", "validation", "development"))
def clotho(data: DataFolder) -> RetrievalRecord:
    """Sounds of 15 to 30 seconds with five captions each; `evaluation` is the set of published figures.

    clotho_captions_<split>.csv    file_name, caption_1, ..., caption_5
    <split>/<file_name>    or clotho_audio_<split>/, clotho_audio_<split>/<split>/

    Published by Drossos et al., Clotho: An Audio Captioning Dataset, ICASSP 2020 (on Zenodo; version 2.1).
    """
    columns = [f"caption_{number}" for number in range(1, 6)]
    rows = read_csv(data.find(f"clotho_captions_{data.split}.csv"), "file_name", *columns)
    sounds = data.find(f"clotho_audio_{data.split}/{data.split}", f"clotho_audio_{data.split}", data.split)
    return _record(data, [data.item(name, sounds / name, captions) for name, *captions in rows])

"""Flickr30k: pictures with five captions each (Young et al., TACL 2014)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmcr.errors import FormatError
from cmcr.evaluation.datasets.annotations import field, lines_of
from cmcr.evaluation.datasets.captioned import Captioned, captioned_pairs, if_there
from cmcr.evaluation.datasets.karpathy import karpathy_items
from cmcr.evaluation.datasets.layout import Layout, Request
from cmcr.evaluation.datasets.records import RetrievalRecord

LAYOUT = Layout(
    name="flickr30k",
    modalities=("image", "text"),
    source=(
        "Young et al., From Image Descriptions to Visual Denotations, TACL 2014; the split by Karpathy and Fei-Fei, Deep "
        "Visual-Semantic Alignments, CVPR 2015"
    ),
    tree=(
        "    dataset_flickr30k.json    for splits 'test' and 'val'\n"
        "    results_20130124.token    <picture>#<number>, a tab, the caption; for split 'all'\n"
        "    flickr30k-images/<picture>    or flickr30k_images/, images/"
    ),
    splits=("test", "val", "all"),
)


def read_flickr30k(folder: Path, request: Request) -> RetrievalRecord:
    """Pair each picture with its five captions; `test` is the 1k test set of published figures."""
    split = LAYOUT.split(request)
    pictures = LAYOUT.find(folder, "flickr30k-images", "flickr30k_images", "images")
    if split == "all":
        items = _token_file(LAYOUT.find(folder, "results_20130124.token"), pictures)
    else:

        def place(image: Any, where: str) -> tuple[Path, str]:
            name = field(image, "filename", str, where)
            return pictures / name, f"{pictures.name}/{name}"

        items = karpathy_items(LAYOUT.find(folder, "dataset_flickr30k.json"), split, place)
    return captioned_pairs(LAYOUT, folder, request, split, "image", items)


def _token_file(path: Path, pictures: Path) -> list[Captioned]:
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(lines_of(path), start=1):
        key, tab, text = line.partition("\t")
        name, mark, _ = key.rpartition("#")
        if not (tab and mark):
            raise FormatError(
                f"{path} line {number}: expected <picture>#<number>, a tab and a caption, got {line[:80]!r}."
            )
        captions.setdefault(name, []).append(text)
    return [
        Captioned(name, if_there(pictures / name), f"{pictures.name}/{name}", texts) for name, texts in captions.items()
    ]

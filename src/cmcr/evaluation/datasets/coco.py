"""COCO captions: pictures with five captions each (Lin et al., ECCV 2014; Chen et al., 2015)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmcr.evaluation.datasets.annotations import field, json_of
from cmcr.evaluation.datasets.captioned import Captioned, captioned_pairs, if_there
from cmcr.evaluation.datasets.karpathy import karpathy_items
from cmcr.evaluation.datasets.layout import Layout, Request
from cmcr.evaluation.datasets.records import RetrievalRecord

LAYOUT = Layout(
    name="coco",
    modalities=("image", "text"),
    source=(
        "cocodataset.org (pictures and captions of 2014 and 2017); the split by Karpathy and Fei-Fei, Deep Visual-Semantic "
        "Alignments, CVPR 2015"
    ),
    tree=(
        "    dataset_coco.json    for splits 'karpathy-test' and 'karpathy-val'\n"
        "    val2014/COCO_val2014_<id>.jpg\n"
        "    annotations/captions_val2017.json, val2017/<id>.jpg    for split 'val2017'"
    ),
    splits=("karpathy-test", "karpathy-val", "val2017"),
)


def read_coco(folder: Path, request: Request) -> RetrievalRecord:
    """Pair each picture with its first five captions; `karpathy-test` is the 5k test set of published figures.

    Layouts as published: `dataset_coco.json` says `filepath` (the folder), `filename`, `split` and `sentences` of each
    picture; `captions_val2017.json` lists `images` (`id`, `file_name`) and `annotations` (`image_id`, `id`, `caption`),
    whose captions are taken by rising `id`.
    """
    split = LAYOUT.split(request)
    items = _official(folder) if split == "val2017" else _karpathy(folder, split.removeprefix("karpathy-"))
    return captioned_pairs(LAYOUT, folder, request, split, "image", items)


def _karpathy(folder: Path, split: str) -> list[Captioned]:
    def place(image: Any, where: str) -> tuple[Path, str]:
        wanted = f"{field(image, 'filepath', str, where)}/{field(image, 'filename', str, where)}"
        return folder / wanted, wanted

    return karpathy_items(LAYOUT.find(folder, "dataset_coco.json"), split, place)


def _official(folder: Path) -> list[Captioned]:
    path = LAYOUT.find(folder, "annotations/captions_val2017.json", "captions_val2017.json")
    pictures = LAYOUT.find(folder, "val2017")
    content = json_of(path, dict)
    captions: dict[int, list[tuple[int, str]]] = {}
    for number, entry in enumerate(field(content, "annotations", list, str(path)), start=1):
        where = f"{path} annotation {number}"
        said = field(entry, "id", int, where), field(entry, "caption", str, where)
        captions.setdefault(field(entry, "image_id", int, where), []).append(said)
    found = []
    for number, image in enumerate(field(content, "images", list, str(path)), start=1):
        where = f"{path} image {number}"
        name = field(image, "file_name", str, where)
        texts = [text for _, text in sorted(captions.get(field(image, "id", int, where), []))]
        found.append(Captioned(name, if_there(pictures / name), f"val2017/{name}", texts))
    return sorted(found, key=lambda item: item.name)

"""The splits of Karpathy and Fei-Fei (CVPR 2015), `dataset_coco.json` and `dataset_flickr30k.json`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cmcr.errors import FormatError
from cmcr.evaluation.datasets.annotations import field, json_of
from cmcr.evaluation.datasets.captioned import Captioned, if_there


def karpathy_items(path: Path, split: str, place: Callable[[Any, str], tuple[Path, str]]) -> list[Captioned]:
    """Read the pictures of one split with their captions, in the file's order.

    Args:
        path: an object whose `images` are objects with `filename`, `split` and `sentences`, each with its `raw` text.
        split: `test`, `val` or `train`.
        place: tells of an image object and where it stands the file, and how the layout names it.

    Raises:
        FormatError: another form, or no picture of this split.
    """
    found = []
    for number, image in enumerate(field(json_of(path, dict), "images", list, str(path)), start=1):
        where = f"{path} image {number}"
        if field(image, "split", str, where) != split:
            continue
        file, wanted = place(image, where)
        captions = [field(sentence, "raw", str, where) for sentence in field(image, "sentences", list, where)]
        found.append(Captioned(field(image, "filename", str, where), if_there(file), wanted, captions))
    if not found:
        raise FormatError(f"{path}: holds no picture of the split {split!r}.")
    return found

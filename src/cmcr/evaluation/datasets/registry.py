"""The data sets by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cmcr.errors import unknown_name
from cmcr.evaluation.datasets import (
    audiocaps,
    ave,
    clotho,
    coco,
    esc50,
    extended,
    flickr30k,
    flickr_soundnet,
    imagenet,
    modelnet40,
    music_solo,
    objaverse_lvis,
    scanobjectnn,
    vgg_ss,
)
from cmcr.evaluation.datasets.layout import Layout, Request
from cmcr.evaluation.datasets.records import Record

Reader = Callable[[Path, Request], Record]

_READERS: tuple[tuple[Layout, Reader], ...] = (
    (ave.LAYOUT, ave.read_ave),
    (flickr_soundnet.LAYOUT, flickr_soundnet.read_flickr_soundnet),
    (flickr_soundnet.BOXES_LAYOUT, flickr_soundnet.read_flickr_soundnet_boxes),
    (vgg_ss.LAYOUT, vgg_ss.read_vgg_ss),
    (vgg_ss.BOXES_LAYOUT, vgg_ss.read_vgg_ss_boxes),
    (music_solo.LAYOUT, music_solo.read_music_solo),
    (extended.EX_VGG_SS.layout, extended.read_ex_vgg_ss),
    (extended.EX_FLICKRNET.layout, extended.read_ex_flickrnet),
    (modelnet40.LAYOUT, modelnet40.read_modelnet40),
    (scanobjectnn.LAYOUT, scanobjectnn.read_scanobjectnn),
    (objaverse_lvis.LAYOUT, objaverse_lvis.read_objaverse_lvis),
    (coco.LAYOUT, coco.read_coco),
    (flickr30k.LAYOUT, flickr30k.read_flickr30k),
    (audiocaps.LAYOUT, audiocaps.read_audiocaps),
    (clotho.LAYOUT, clotho.read_clotho),
    (esc50.LAYOUT, esc50.read_esc50),
    (imagenet.LAYOUT, imagenet.read_imagenet),
)

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout, _ in _READERS}
"""How each data set is laid out, by its name."""


def read_dataset(
    name: str,
    folder: str | os.PathLike[str],
    *,
    split: str | None = None,
    allow_missing: bool = False,
    limit: int | None = None,
) -> Record:
    """Read a data set that lies on the disk as its authors publish it. Nothing is downloaded, no item is decoded.

    Args:
        name: one of `LAYOUTS`.
        folder: where it lies.
        split: one of the data set's splits; `None` takes the one of published figures.
        allow_missing: leave out items that the annotations name and whose files are not there, and count them in
            `left_out`.
        limit: at most so many items, evenly spaced over the whole, so that all classes of a sorted list are met.

    Returns:
        `RetrievalRecord`, `ClassificationRecord`, `LocalizationRecord` or `CounterfactualRecord`, as the data set is.

    Raises:
        ConfigError: an unknown name or split (the nearest is named), or a limit below 1.
        ArtefactNotFoundError: a file of the layout is not there (with the layout and who publishes it), or files of items
            (how many, and the first three).
        FormatError: annotations of another form, with the place.
        SampleError: annotations that are not UTF-8.
        ReadError: the system refuses to read something.
    """
    readers = {layout.name: reader for layout, reader in _READERS}
    if name not in readers:
        raise unknown_name("data set", name, readers)
    return readers[name](Path(folder), Request(split, allow_missing, limit))

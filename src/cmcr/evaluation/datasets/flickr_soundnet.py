"""Flickr-SoundNet: 5,000 pictures with their sounds, boxed by three annotators each (Senocak et al., CVPR 2018)."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmcr.data.paths import reading
from cmcr.errors import FormatError
from cmcr.evaluation.datasets.annotations import plain_rows, shares
from cmcr.evaluation.datasets.clips import ChosenClips, clips_in
from cmcr.evaluation.datasets.layout import Layout, Request, files_by_stem
from cmcr.evaluation.datasets.records import LocalizationRecord, RetrievalRecord

LAYOUT = Layout(
    name="flickr-soundnet",
    modalities=("audio", "image"),
    source="Senocak et al., Learning to Localize Sound Source in Visual Scenes, CVPR 2018 (its Sound Localization dataset)",
    tree=(
        "    frames/<id>.jpg\n"
        "    audio/<id>.wav\n"
        "    Annotations/<id>.xml    bbox elements in a picture of 256 x 256\n"
        "    flickr_test.csv (also in metadata/) or test_list.txt    ids of the 250 usually tested, for split 'test'\n"
        "(frames, audio and Annotations may lie together in test/)"
    ),
    splits=("all", "test"),
)
BOXES_LAYOUT = replace(LAYOUT, name="flickr-soundnet-boxes", splits=("test", "all"))

_ROOTS = (".", "test", "Test")
_SIDE = 256  # pixels of the pictures on which the boxes were drawn
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_flickr_soundnet(folder: Path, request: Request) -> RetrievalRecord:
    """Pair each sound with its picture; split `all` is all that is annotated, `test` the 250 of later tables."""
    return _chosen(LAYOUT, folder, request).pairs()


def read_flickr_soundnet_boxes(folder: Path, request: Request) -> LocalizationRecord:
    """Read the boxes of all annotators, one row each, in shares of the picture.

    Layout as the test code of Chen et al. (CVPR 2021) and of EZ-VSL reads it: within the root, elements (one an annotator)
    hold `bbox` elements, whose first child is no number and whose next four are xmin, ymin, xmax, ymax in pixels of a 256 x
    256 picture.
    """
    chosen = _chosen(BOXES_LAYOUT, folder, request, with_boxes=True)
    annotations = _annotations(BOXES_LAYOUT, folder)
    return chosen.grounded({name: boxes_in(annotations[name]) for name in chosen.ids})


def boxes_in(path: Path) -> NDArray[np.float64]:
    """Read the boxes of one XML file as shares, `(b, 4)`.

    Raises:
        FormatError: not XML, or a box that is not four numbers.
    """
    try:
        with reading(path):
            root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise FormatError(f"{path}: not valid XML ({error}). Fetch it again.") from error
    pixels = [_corners(element, path) for element in root.iter("bbox")]
    return shares([[corner / _SIDE for corner in box] for box in pixels], str(path))


def _corners(element: ElementTree.Element, path: Path) -> list[float]:
    by_name = {child.tag.lower(): child.text for child in element}
    children = [child.text for child in element]
    texts = [by_name.get(corner) for corner in _CORNERS] if set(_CORNERS) <= set(by_name) else children[1:5]
    try:
        corners = [float(text or "") for text in texts]
    except ValueError:
        corners = []
    if len(corners) != 4:
        raise FormatError(f"{path}: expected a bbox with a type, xmin, ymin, xmax and ymax, got {children}.")
    return corners


def _annotations(layout: Layout, folder: Path) -> dict[str, Path]:
    return files_by_stem(layout.find(folder, *(str(Path(root) / "Annotations") for root in _ROOTS)), (".xml",))


def _chosen(layout: Layout, folder: Path, request: Request, *, with_boxes: bool = False) -> ChosenClips:
    """Choose the split's clips."""
    split = layout.split(request)
    annotated = _annotations(layout, folder)
    if split == "all":
        ids = sorted(annotated)
    else:
        listed = layout.find(folder, "flickr_test.csv", "metadata/flickr_test.csv", "test_list.txt")
        ids = sorted({Path(row[0]).stem for row in plain_rows(listed, at_least=1)})  # the authors' list has file names
    clips = clips_in(layout, folder, _ROOTS)
    there = [clips.has(name, name) and (not with_boxes or name in annotated) for name in ids]
    wanted = [f"frames/{name}.jpg with audio/{name}.wav" + ", Annotations" * with_boxes for name in ids]
    rows_kept = layout.kept(folder, replace(request, limit=None), wanted, there)
    kept = [ids[row] for row in rows_kept]
    if with_boxes:
        kept = [name for name in kept if len(boxes_in(annotated[name]))]
    left_out = len(ids) - len(kept)
    few = layout.kept(folder, request, kept, [True] * len(kept))
    return ChosenClips(layout.called(split), [kept[row] for row in few], clips, left_out)

"""VGG-SS: boxes around what sounds, for clips of VGG-Sound's test set (Chen et al., CVPR 2021)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import FormatError
from cmcr.evaluation.datasets.annotations import field, json_of, plain_rows, shares
from cmcr.evaluation.datasets.clips import ChosenClips, clips_in
from cmcr.evaluation.datasets.layout import Layout, Request
from cmcr.evaluation.datasets.records import LocalizationRecord, RetrievalRecord

LAYOUT = Layout(
    name="vgg-ss",
    modalities=("audio", "image"),
    source="Chen et al., Localizing Visual Sounds the Hard Way, CVPR 2021 (annotations), on clips of VGG-Sound",
    tree=(
        "    vggss.json or metadata/vggss.json    [{file, class, bbox: [[left, top, right, bottom], ...]}, ...]\n"
        "    frames/<file>.jpg, audio/<file>.wav    file is <YouTube id>_<first second, six digits>\n"
        "    or videos/<file>.mp4    the ten-second clips\n"
        "    vggss_heard_test.csv, vggss_unheard_test.csv (also in metadata/)    for splits 'heard' and 'unheard'"
    ),
    splits=("all", "heard", "unheard"),
)
BOXES_LAYOUT = replace(LAYOUT, name="vgg-ss-boxes")

FRAME_SECONDS = 5.0  # the boxes were drawn on frame 125 of clips at 25 frames a second


def read_vgg_ss(folder: Path, request: Request) -> RetrievalRecord:
    """Pair each sound with its frame."""
    chosen, _ = _chosen(LAYOUT, folder, request)
    return chosen.pairs()


def read_vgg_ss_boxes(folder: Path, request: Request) -> LocalizationRecord:
    """Read the boxes of each clip, of which there may be several, cut at the edge of the picture."""
    chosen, boxes = _chosen(BOXES_LAYOUT, folder, request)
    return chosen.grounded(boxes)


def annotated_boxes(layout: Layout, folder: Path) -> dict[str, NDArray[np.float64]]:
    """Read `vggss.json`: boxes `(b, 4)` by file name, shares of the picture.

    Layout as published with the paper: a list of objects with `file`, `class` and `bbox`, a list of boxes left, top, right,
    bottom in shares, which may lie a little outside 0 to 1 and are cut there by published code too.

    Raises:
        FormatError: another form, or a file that is there twice.
    """
    path = layout.find(folder, "vggss.json", "metadata/vggss.json")
    found: dict[str, NDArray[np.float64]] = {}
    for number, entry in enumerate(json_of(path, list), start=1):
        where = f"{path} entry {number}"
        name = field(entry, "file", str, where)
        if name in found:
            raise FormatError(f"{where}: {name!r} is there twice.")
        found[name] = shares(field(entry, "bbox", list, where), where)
    return found


def _chosen(layout: Layout, folder: Path, request: Request) -> tuple[ChosenClips, dict[str, NDArray[np.float64]]]:
    """Choose the split's clips, and read the boxes of all."""
    split = layout.split(request)
    boxes = annotated_boxes(layout, folder)
    ids = sorted(boxes)
    if split != "all":
        listed = f"vggss_{split}_test.csv"
        rows = plain_rows(layout.find(folder, listed, f"metadata/{listed}"), at_least=1)
        ids = sorted({row[0] for row in rows})
    clips = clips_in(layout, folder, (".",), frame_seconds=FRAME_SECONDS)
    usable = [name for name in ids if len(boxes.get(name, ()))]  # a list may name clips whose boxes were withdrawn
    there = [clips.has(name, name) for name in usable]
    rows_kept = layout.kept(folder, request, [f"frames/{name}.jpg with audio/{name}.wav" for name in usable], there)
    kept = [usable[row] for row in rows_kept]
    return ChosenClips(layout.called(split), kept, clips, len(ids) - sum(there)), boxes

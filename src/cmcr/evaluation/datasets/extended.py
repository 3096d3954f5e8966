"""Ex-VGG-SS and Ex-FlickrNet: test sets with pairs added of which the sound is not seen (Mo and Morgado, NeurIPS 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmcr.evaluation.datasets.annotations import plain_rows
from cmcr.evaluation.datasets.clips import Clips, clips_in
from cmcr.evaluation.datasets.layout import PICTURES, SOUNDS, Layout, Request, files_by_stem
from cmcr.evaluation.datasets.records import CounterfactualRecord

_SOURCE = "Mo and Morgado, A Closer Look at Weakly-Supervised Audio-Visual Source Localization, NeurIPS 2022 (SLAVC)"
_SILENT = "non-sounding"


@dataclass(frozen=True)
class _Family:
    layout: Layout
    stem: str


def _family(name: str, stem: str) -> _Family:
    tree = (
        f"    {stem}_test.csv    ids whose picture and sound belong together\n"
        f"    {stem}_test_plus_silent.csv    picture id, sound id, kind; the rows of kind {_SILENT} do not belong together\n"
        "    frames/<id>.jpg, audio/<id>.wav    (or extend_frames/ and extend_audio/)\n"
        "(the lists may lie in metadata/)"
    )
    layout = Layout(name=name, modalities=("audio", "image"), source=_SOURCE, tree=tree, splits=("test",))
    return _Family(layout, stem)


EX_VGG_SS = _family("ex-vgg-ss", "vggss")
EX_FLICKRNET = _family("ex-flickrnet", "flickr")


def read_ex_vgg_ss(folder: Path, request: Request) -> CounterfactualRecord:
    """Read the pairs of VGG-SS, and after them pairs of which the sound is not in the picture."""
    return _read(EX_VGG_SS, folder, request)


def read_ex_flickrnet(folder: Path, request: Request) -> CounterfactualRecord:
    """Read the pairs of Flickr-SoundNet's test set, and after them pairs of which the sound is not in the picture."""
    return _read(EX_FLICKRNET, folder, request)


def _read(family: _Family, folder: Path, request: Request) -> CounterfactualRecord:
    """Read what the authors' test code reads: true pairs by the first list, false ones by the second."""
    layout = family.layout
    split = layout.split(request)
    pairs = _pairs(family, folder)
    clips = _clips(layout, folder)
    there = [clips.has(picture, sound) for picture, sound, _ in pairs]
    wanted = [f"frames/{picture}.jpg with audio/{sound}.wav" for picture, sound, _ in pairs]
    kept = [pairs[row] for row in layout.kept(folder, request, wanted, there)]
    return CounterfactualRecord(
        name=layout.called(split),
        images=[clips.pictures[picture] for picture, _, _ in kept],
        sounds=[clips.sounds[sound] for _, sound, _ in kept],
        ids=[f"{picture} {sound}" for picture, sound, _ in kept],
        present=np.array([present for _, _, present in kept], dtype=np.bool_),
        left_out=len(pairs) - sum(there),
    )


def _pairs(family: _Family, folder: Path) -> list[tuple[str, str, bool]]:
    """Give picture, sound and whether they belong together; a pair that is listed again is there once."""
    stem, layout = family.stem, family.layout
    true = plain_rows(layout.find(folder, f"{stem}_test.csv", f"metadata/{stem}_test.csv"), at_least=1)
    silent = f"{stem}_test_plus_silent.csv"
    added = plain_rows(layout.find(folder, silent, f"metadata/{silent}"), at_least=3)
    found = {(name, name): True for name in sorted({row[0] for row in true})}
    for picture, sound, kind, *_ in added:
        if kind == _SILENT:
            found.setdefault((picture, sound), False)
    return [(picture, sound, present) for (picture, sound), present in found.items()]


def _clips(layout: Layout, folder: Path) -> Clips:
    if (folder / "extend_frames").is_dir():
        sounds = layout.find(folder, "extend_audio")
        return Clips(files_by_stem(folder / "extend_frames", PICTURES), files_by_stem(sounds, SOUNDS))
    return clips_in(layout, folder, (".",))

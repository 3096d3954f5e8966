"""MUSIC-Solo: frames of solo performances with a box around each instrument (Hu et al., NeurIPS 2020)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmcr.data.audio import SoundClip
from cmcr.errors import FormatError
from cmcr.evaluation.datasets.annotations import field, json_of, shares
from cmcr.evaluation.datasets.layout import SOUNDS, VIDEOS, Layout, Request, files_by_stem
from cmcr.evaluation.datasets.records import LocalizationRecord

LAYOUT = Layout(
    name="music-solo",
    modalities=("audio", "image"),
    source=(
        "Hu et al., Discriminative Sounding Objects Localization, NeurIPS 2020 (boxes), on videos of Zhao et al., The Sound "
        "of Pixels, ECCV 2018"
    ),
    tree=(
        "    solotest.json    {'<video>/frame_<second>/<frame>.jpg': {bbox: [{normbox: [left, top, width, height], ...}]}}\n"
        "    video_frames/<video>/frame_<second>/<frame>.jpg\n"
        "    audio/<video>.wav    the whole sound track\n"
        "    or, as later code has it:\n"
        "    music_solo.json    [{file: '<YouTube id>_<second>_<frame>', bbox: [left, top, width, height]}, ...]\n"
        "    frames/<file>.jpg, audio/<YouTube id>.wav"
    ),
    splits=("test",),
)

SOUND_SECONDS = 1.0  # the authors cut sound tracks into seconds, and pair a frame with the second it was taken from
_FRAME = re.compile(r"(?P<video>.+)/frame_(?P<second>\d+)/[^/]+")
_FILE = re.compile(r"(?P<video>.+)_(?P<second>\d{3})_\d{5}")


@dataclass(frozen=True)
class _Annotated:
    """One frame: its name, its file from the folder on, the video and second it is from, and its boxes."""

    name: str
    frame: str
    video: str
    second: int
    boxes: NDArray[np.float64]


def read_music_solo(folder: Path, request: Request) -> LocalizationRecord:
    """Pair each frame with the second of sound it was taken from.

    Layout of the authors' repository: `music-exp/solotest.json`; its cutting scripts make `frame_<second>/<frame>.jpg` and
    seconds of sound. Boxes are left, top, width and height, as its `eval.py` draws them. Some later code reads the same
    numbers as two corners, which gives boxes without a size. Frames without a box are left out and counted.
    """
    split = LAYOUT.split(request)
    frames = _annotated(folder)
    boxed = [one for one in frames if len(one.boxes)]
    sounds = files_by_stem(LAYOUT.find(folder, "audio"), (*SOUNDS, *VIDEOS))
    there = [one.video in sounds and (folder / one.frame).is_file() for one in boxed]
    rows = LAYOUT.kept(folder, request, [f"{one.frame} with audio/{one.video}.wav" for one in boxed], there)
    kept = [boxed[row] for row in rows]
    return LocalizationRecord(
        name=LAYOUT.called(split),
        images=[folder / one.frame for one in kept],
        sounds=[SoundClip(sounds[one.video], float(one.second), SOUND_SECONDS) for one in kept],
        ids=[one.name for one in kept],
        boxes=[one.boxes for one in kept],
        left_out=len(frames) - sum(there),
    )


def _annotated(folder: Path) -> list[_Annotated]:
    path = LAYOUT.find(folder, "solotest.json", "music_solo.json", "metadata/music_solo.json")
    found = _by_frame(path) if path.name == "solotest.json" else _by_file(path)
    return sorted(found, key=lambda one: one.name)


def _by_frame(path: Path) -> list[_Annotated]:
    found = []
    for name, entry in json_of(path, dict).items():
        where = f"{path} entry {name!r}"
        parts = _FRAME.fullmatch(name)
        if parts is None:
            raise FormatError(f"{where}: expected <video>/frame_<second>/<frame>.jpg.")
        given = [field(box, "normbox", list, where) for box in field(entry, "bbox", list, where)]
        boxes = shares(given, where, corner_and_size=True)
        found.append(_Annotated(name, f"video_frames/{name}", parts["video"], int(parts["second"]), boxes))
    return found


def _by_file(path: Path) -> list[_Annotated]:
    found = []
    for number, entry in enumerate(json_of(path, list), start=1):
        where = f"{path} entry {number}"
        name = field(entry, "file", str, where)
        parts = _FILE.fullmatch(name)
        if parts is None:
            raise FormatError(f"{where}: expected the file <YouTube id>_<second>_<frame>, got {name!r}.")
        boxes = shares([field(entry, "bbox", list, where)], where, corner_and_size=True)
        found.append(_Annotated(name, f"frames/{name}.jpg", parts["video"], int(parts["second"]), boxes))
    return found

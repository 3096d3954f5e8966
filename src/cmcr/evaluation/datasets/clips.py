"""Clips of audio-visual sets: a frame and a sound under one name, or a video that holds both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.data.videos import VideoFrame
from cmcr.evaluation.datasets.layout import PICTURES, SOUNDS, VIDEOS, Layout, files_by_stem
from cmcr.evaluation.datasets.records import LocalizationRecord, RetrievalRecord
from cmcr.evaluation.datasets.sounding import sound_to_picture


@dataclass(frozen=True)
class Clips:
    """The pictures and sounds of a folder by their names.

    Args:
        pictures: by name without ending.
        sounds: by name without ending.
    """

    pictures: dict[str, Any]
    sounds: dict[str, Path]

    def has(self, picture: str, sound: str) -> bool:
        """Tell whether both are there."""
        return picture in self.pictures and sound in self.sounds


@dataclass(frozen=True)
class ChosenClips:
    """Clips of a split, to be paired, or to be grounded by boxes.

    Args:
        name: of the data set and split.
        ids: of the clips, which are all in `clips`.
        clips: of the folder.
        left_out: how many more the annotations name.
    """

    name: str
    ids: Sequence[str]
    clips: Clips
    left_out: int

    def pairs(self) -> RetrievalRecord:
        """Pair each sound with its picture."""
        return sound_to_picture(
            self.name,
            self.ids,
            sounds=[self.clips.sounds[name] for name in self.ids],
            images=[self.clips.pictures[name] for name in self.ids],
            left_out=self.left_out,
        )

    def grounded(self, boxes: Mapping[str, NDArray[np.float64]]) -> LocalizationRecord:
        """Give each clip its boxes, by its id."""
        return LocalizationRecord(
            name=self.name,
            images=[self.clips.pictures[name] for name in self.ids],
            sounds=[self.clips.sounds[name] for name in self.ids],
            ids=self.ids,
            boxes=[boxes[name] for name in self.ids],
            left_out=self.left_out,
        )


def clips_in(layout: Layout, folder: Path, roots: Sequence[str], *, frame_seconds: float | None = None) -> Clips:
    """List `frames/` and `audio/`, the form in which published test code reads such sets.

    Args:
        layout: of the data set.
        folder: of the data set.
        roots: where the two folders may lie, from `folder`; the first that holds `frames` is taken.
        frame_seconds: where no `frames` lie anywhere, take videos (`videos/` or `video/`) and this moment of each; `None`
            takes no videos.

    Raises:
        ArtefactNotFoundError: no such folders.
    """
    places = [str(Path(root) / "frames") for root in roots]
    videos = [folder / place for place in ("videos", "video") if (folder / place).is_dir()]
    if frame_seconds is not None and videos and not any((folder / place).is_dir() for place in places):
        files = files_by_stem(videos[0], VIDEOS)
        frames = {name: VideoFrame(path, frame_seconds, "seconds") for name, path in files.items()}
        return Clips(frames, files)
    frames_folder = layout.find(folder, *places)
    sounds_folder = layout.find(frames_folder.parent, "audio")
    return Clips(files_by_stem(frames_folder, PICTURES), files_by_stem(sounds_folder, SOUNDS))

"""AudioCaps: ten-second sounds from AudioSet, five captions each in the test set (Kim et al., NAACL 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cmcr.evaluation.datasets.annotations import csv_rows
from cmcr.evaluation.datasets.captioned import Captioned, captioned_pairs
from cmcr.evaluation.datasets.layout import SOUNDS, VIDEOS, Layout, Request, files_by_stem
from cmcr.evaluation.datasets.records import RetrievalRecord

LAYOUT = Layout(
    name="audiocaps",
    modalities=("audio", "text"),
    source="Kim et al., AudioCaps: Generating Captions for Audios in the Wild, NAACL 2019 (lists; the sounds are on YouTube)",
    tree=(
        "    test.csv, val.csv, train.csv or dataset/<split>.csv    audiocap_id, youtube_id, start_time, caption\n"
        "    audio/ or <split>/ or audio/<split>/    ten-second clips, named <youtube_id>_<start_time>, <youtube_id>,\n"
        "        Y<youtube_id> or <audiocap_id>, with .wav, .flac, .mp3, .mp4 or the like"
    ),
    splits=("test", "val", "train"),
)


@dataclass
class _Clip:
    names: list[str]
    captions: list[str] = field(default_factory=list)


def read_audiocaps(folder: Path, request: Request) -> RetrievalRecord:
    """Pair each clip with its captions; a clip is a video and the second it begins at, whatever its file is called.

    Columns as in the lists that the authors publish. They publish no sounds, so that there is no layout of these: what
    common download scripts name them is looked for.
    """
    split = LAYOUT.split(request)
    clips = _clips(LAYOUT.find(folder, f"{split}.csv", f"dataset/{split}.csv"))
    sounds = files_by_stem(LAYOUT.find(folder, f"audio/{split}", "audio", split), (*SOUNDS, *VIDEOS))
    items = []
    for name, clip in clips.items():
        file = next((sounds[one] for one in clip.names if one in sounds), None)
        items.append(Captioned(name, file, f"audio/{clip.names[0]}.wav", clip.captions))
    return captioned_pairs(LAYOUT, folder, request, split, "audio", items)


def _clips(path: Path) -> dict[str, _Clip]:
    found: dict[str, _Clip] = {}
    for row in csv_rows(path, ("audiocap_id", "youtube_id", "start_time", "caption")):
        video, start = row["youtube_id"].strip(), row["start_time"].strip()
        clip = found.setdefault(f"{video}_{start}", _Clip([f"{video}_{start}", video, f"Y{video}"]))
        clip.names.append(row["audiocap_id"].strip())
        clip.captions.append(row["caption"])
    return found

"""AVE: ten-second clips from YouTube in which an event is both seen and heard (Tian et al., ECCV 2018)."""

from __future__ import annotations

from pathlib import Path

from cmcr.data.videos import VideoFrame
from cmcr.errors import FormatError
from cmcr.evaluation.datasets.annotations import lines_of
from cmcr.evaluation.datasets.layout import VIDEOS, Layout, Request, files_by_stem
from cmcr.evaluation.datasets.records import RetrievalRecord
from cmcr.evaluation.datasets.sounding import sound_to_picture

LAYOUT = Layout(
    name="ave",
    modalities=("audio", "image"),
    source="Tian et al., Audio-Visual Event Localization in Unconstrained Videos, ECCV 2018 (AVE_Dataset)",
    tree=(
        "    AVE/<YouTube id>.mp4\n"
        "    Annotations.txt    Category&VideoID&Quality&StartTime&EndTime, for split 'all'\n"
        "    trainSet.txt, valSet.txt, testSet.txt    the same without a first line of names, for these splits"
    ),
    splits=("all", "test", "val", "train"),
)

_FILES = {"all": "Annotations.txt", "test": "testSet.txt", "val": "valSet.txt", "train": "trainSet.txt"}
_HEADER = "Category&VideoID&Quality&StartTime&EndTime"


def read_ave(folder: Path, request: Request) -> RetrievalRecord:
    """Pair the sound track of each clip with its middle frame.

    Layout as the archive of the authors and the loaders of published code have it: rows of five fields between `&`, the
    whole list with a first line of names (`VideoID` is the name of the file), the lists of the splits without.

    A video with two events has two rows; it is one clip here, since equal pictures cannot be told apart. 4,143 rows are
    therefore fewer videos, as the authors' ReadMe says.
    """
    split = LAYOUT.split(request)
    ids = _videos(LAYOUT.find(folder, _FILES[split]))
    files = files_by_stem(LAYOUT.find(folder, "AVE"), VIDEOS)
    rows = LAYOUT.kept(folder, request, [f"AVE/{name}.mp4" for name in ids], [name in files for name in ids])
    kept = [ids[row] for row in rows]
    return sound_to_picture(
        LAYOUT.called(split),
        kept,
        sounds=[files[name] for name in kept],
        images=[VideoFrame(files[name]) for name in kept],
        left_out=sum(name not in files for name in ids),
    )


def _videos(path: Path) -> list[str]:
    found: dict[str, None] = {}
    for number, line in enumerate(lines_of(path), start=1):
        if line.strip() == _HEADER:
            continue
        fields = [part.strip() for part in line.split("&")]
        if len(fields) != 5 or not fields[1]:
            raise FormatError(f"{path} line {number}: expected {_HEADER}, got {line[:80]!r}.")
        found[fields[1]] = None
    return list(found)

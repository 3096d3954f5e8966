"""Pictures with their sounds: AVE, Flickr-SoundNet, VGG-SS and MUSIC-Solo, read as pairs or with boxes, and the Ex- sets."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmcr.data.audio import SoundClip
from cmcr.data.videos import VideoFrame
from cmcr.errors import FormatError
from cmcr.evaluation.datasets.layout import (
    PICTURES,
    SOUNDS,
    VIDEOS,
    Box,
    DataFolder,
    Item,
    LabelT,
    clipped,
    existing,
    files_by_stem,
    published_as,
    read_csv,
    read_json,
    read_text_lines,
)
from cmcr.evaluation.datasets.records import CounterfactualRecord, LocalizationRecord, RetrievalRecord
from cmcr.evaluation.localization import Boxes
from cmcr.evaluation.metrics import PerQuery
from cmcr.files import reading


class _Files(NamedTuple):
    """Pictures and sounds of a folder, by name without suffix."""

    images: Mapping[str, Path | VideoFrame]
    sounds: Mapping[str, Path]

    def item(self, id: str, image: str, sound: str, label: LabelT) -> Item[LabelT]:
        """Describe a picture with a sound."""
        exist = image in self.images and sound in self.sounds
        content = (self.images[image], self.sounds[sound]) if exist else None
        return Item(id, f"frames/{image}.jpg with audio/{sound}.wav", content, label)


def _frames_and_audio(data: DataFolder, *roots: str) -> _Files:
    """List `frames/` and `audio/`, the form in which published test code reads such sets, in the first root that has them."""
    frames = data.find(*(f"{root}frames" for root in roots))
    audio = data.find(*(f"{root}audio" for root in roots))
    return _Files(files_by_stem(frames, PICTURES), files_by_stem(audio, SOUNDS))


def _retrieval(data: DataFolder, items: Sequence[Item[Any]], left_out: int = 0) -> RetrievalRecord:
    ids, clips, _, left_out = data.keep(items, left_out)
    images, sounds = map(list, zip(*clips, strict=True))
    positives = PerQuery.one(np.arange(len(ids)))
    return RetrievalRecord(data.name, data.layout.modalities, sounds, images, ids, ids, positives, left_out)


def _localization(
    data: DataFolder, items: Sequence[Item[Boxes]], left_out: int, videos: Mapping[str, str] | None = None
) -> LocalizationRecord:
    ids, clips, boxes, left_out = data.keep(items, left_out)
    images, sounds = map(list, zip(*clips, strict=True))
    groups = None if videos is None else [videos[name] for name in ids]
    return LocalizationRecord(data.name, images, sounds, ids, boxes, left_out, groups)


_AVE_LISTS = {"all": "Annotations.txt", "test": "testSet.txt", "val": "valSet.txt", "train": "trainSet.txt"}
_AVE_COLUMNS = "Category&VideoID&Quality&StartTime&EndTime"


@published_as("ave", ("audio", "image"), splits=tuple(_AVE_LISTS))
def ave(data: DataFolder) -> RetrievalRecord:
    """Ten-second clips in which an event is both seen and heard: the sound track with the middle frame.

    AVE/<YouTube id>.mp4
    Annotations.txt    Category&VideoID&Quality&StartTime&EndTime, for split 'all'
    trainSet.txt, valSet.txt, testSet.txt    the same without a first line of names, for these splits

    Published by Tian et al., Audio-Visual Event Localization in Unconstrained Videos, ECCV 2018 (AVE_Dataset).
    """
    path = data.find(_AVE_LISTS[data.split])
    rows = [line.strip().split("&") for line in read_text_lines(path) if line.strip() != _AVE_COLUMNS]
    wrong = next((row for row in rows if len(row) != 5), None)
    if wrong is not None:
        raise FormatError(f"{path}: expected lines of {_AVE_COLUMNS}, got {'&'.join(wrong)!r:.80}.")
    # A video with two events has two rows; it is one clip here, since equal pictures cannot be told apart.
    names = dict.fromkeys(video.strip() for _, video, _, _, _ in rows)
    files = files_by_stem(data.find("AVE"), VIDEOS)
    clips = {name: (VideoFrame(video), video) for name, video in files.items()}
    return _retrieval(data, [Item(name, f"AVE/{name}.mp4", clips.get(name), None) for name in names])


_FLICKR_ROOTS = ("", "test/")
_FLICKR_PIXELS = 256  # width and height of the pictures on which the boxes were drawn


@published_as("flickr-soundnet", ("audio", "image"), splits=("all", "test"))
def flickr_soundnet(data: DataFolder) -> RetrievalRecord:
    """Pictures with their sounds, boxed by three annotators each; `test` is the 250 of tables since 2021.

    frames/<id>.jpg
    audio/<id>.wav
    Annotations/<id>.xml    bbox elements in a picture of 256 x 256
    flickr_test.csv (also in metadata/) or test_list.txt    ids of the 250 usually tested, for split 'test'
    (frames, audio and Annotations may be in test/)

    Published by Senocak et al., Learning to Localize Sound Source in Visual Scenes, CVPR 2018 (its Sound Localization
    dataset).
    """
    files, ids, _ = _flickr_soundnet(data)
    return _retrieval(data, [files.item(name, name, name, None) for name in ids])


def _flickr_soundnet(data: DataFolder) -> tuple[_Files, list[str], dict[str, Path]]:
    """Find pictures and sounds, the ids of the split and the annotations by id."""
    annotated = files_by_stem(data.find(*(f"{root}Annotations" for root in _FLICKR_ROOTS)), (".xml",))
    ids = set(annotated)
    if data.split == "test":
        listed = data.find("flickr_test.csv", "metadata/flickr_test.csv", "test_list.txt")
        ids = {Path(name.strip()).stem for (name,) in read_csv(listed, "id", header=False)}  # test_list.txt: <id>.png
    return _frames_and_audio(data, *_FLICKR_ROOTS), sorted(ids), annotated


def _flickr_soundnet_boxes(data: DataFolder) -> LocalizationRecord:
    """Read the boxes of all annotators, one row each."""
    files, ids, annotated = _flickr_soundnet(data)
    items = []
    for name in ids:
        boxes = _xml_boxes(annotated[name]) if name in annotated else np.empty((0, 4))
        if len(boxes):
            items.append(files.item(name, name, name, boxes))
        elif name not in annotated:
            items.append(Item(name, f"Annotations/{name}.xml", None, boxes))
    return _localization(data, items, len(ids) - len(items))


def _xml_boxes(path: Path) -> Boxes:
    """Read the boxes of one file, in the layout that the test code of Chen et al. (CVPR 2021) and of EZ-VSL reads.

    Anywhere below the root, elements `bbox`: the first child is no number, the next four are xmin, ymin, xmax, ymax in
    pixels of a 256 x 256 picture.
    """
    try:
        with reading(path):
            root = ElementTree.fromstring(path.read_bytes())
        corners = [[float(child.text or "") for child in list(box)[1:5]] for box in root.iter("bbox")]
        return clipped(np.reshape(corners, (len(corners), 4)) / _FLICKR_PIXELS)
    except (ElementTree.ParseError, ValueError) as error:
        raise FormatError(
            f"{path}: expected XML with bbox elements of a type, xmin, ymin, xmax and ymax ({error})."
        ) from error


flickr_soundnet_boxes = replace(
    flickr_soundnet, name="flickr-soundnet-boxes", splits=("test", "all"), read=_flickr_soundnet_boxes
)


@dataclass(slots=True)
class _VggSsEntry:
    """One clip; boxes are shares of the picture and may reach a little beyond it."""

    file: str
    bbox: list[Box]


@published_as("vgg-ss", ("audio", "image"), splits=("all", "heard", "unheard"))
def vgg_ss(data: DataFolder) -> RetrievalRecord:
    """Clips of VGG-Sound's test set, with boxes around the source of the sound.

    vggss.json or metadata/vggss.json    [{file, class, bbox: [[left, top, right, bottom], ...]}, ...]
    frames/<file>.jpg, audio/<file>.wav    file is <YouTube id>_<first second, six digits>
    or videos/<file>.mp4    the ten-second clips
    vggss_heard_test.csv, vggss_unheard_test.csv (also in metadata/)    for splits 'heard' and 'unheard'

    Published by Chen et al., Localizing Visual Sounds the Hard Way, CVPR 2021 (annotations), on clips of VGG-Sound.
    """
    return _retrieval(data, *_vgg_ss(data))


def _vgg_ss(data: DataFolder) -> tuple[list[Item[Boxes]], int]:
    """List the clips of the split that have a box, and count the others: some boxes were withdrawn after publication."""
    path = data.find("vggss.json", "metadata/vggss.json")
    entries = read_json(path, list[_VggSsEntry])
    boxes = {entry.file: clipped(entry.bbox) for entry in entries}
    if len(boxes) < len(entries):
        raise FormatError(f"{path}: {len(entries) - len(boxes)} of its {len(entries)} files are listed twice.")
    names = set(boxes)
    if data.split != "all":
        listed = data.find(f"vggss_{data.split}_test.csv", f"metadata/vggss_{data.split}_test.csv")
        names = {name.strip() for (name,) in read_csv(listed, "file", header=False)}
    if (data.path / "frames").is_dir() or not (data.path / "videos").is_dir():
        files = _frames_and_audio(data, "")
    else:
        videos = files_by_stem(data.path / "videos", VIDEOS)
        # The boxes were drawn on frame 125 of clips at 25 frames a second.
        files = _Files({name: VideoFrame(video, 5.0) for name, video in videos.items()}, videos)
    boxed = sorted(name for name in names if len(boxes.get(name, ())))
    return [files.item(name, name, name, boxes[name]) for name in boxed], len(names) - len(boxed)


vgg_ss_boxes = replace(vgg_ss, name="vgg-ss-boxes", read=lambda data: _localization(data, *_vgg_ss(data)))


@dataclass(slots=True)
class _SoloBox:
    normbox: Box


@dataclass(slots=True)
class _SoloFrame:
    bbox: list[_SoloBox]


@dataclass(slots=True)
class _SoloFile:
    file: str
    bbox: Box


@published_as("music-solo", ("audio", "image"), splits=("test",))
def music_solo(data: DataFolder) -> LocalizationRecord:
    """Frames of solo performances with a box around each instrument, and the second of sound at which they were taken.

    solotest.json    {'<video>/frame_<second>/<frame>.jpg': {bbox: [{normbox: [left, top, width, height], ...}]}}
    video_frames/<video>/frame_<second>/<frame>.jpg
    audio/<video>.wav    the whole sound track
    or, in the form of later code:
    music_solo.json    [{file: '<YouTube id>_<second>_<frame>', bbox: [left, top, width, height]}, ...]
    frames/<file>.jpg, audio/<YouTube id>.wav

    Published by Hu et al., Discriminative Sounding Objects Localization, NeurIPS 2020 (boxes), on videos of Zhao et al.,
    The Sound of Pixels, ECCV 2018.
    """
    path = data.find("solotest.json", "music_solo.json", "metadata/music_solo.json")
    drawn: list[tuple[str, str, list[Box]]]  # id, file and boxes of each frame; many have no box
    if path.name == "solotest.json":
        form, pattern = "<video>/frame_<second>/<frame>", r"(?P<video>.+)/frame_(?P<second>\d+)/[^/]+"
        frames = read_json(path, dict[str, _SoloFrame])
        drawn = [(name, f"video_frames/{name}", [box.normbox for box in one.bbox]) for name, one in frames.items()]
    else:
        form, pattern = "<YouTube id>_<second>_<frame>", r"(?P<video>.+)_(?P<second>\d{3})_\d{5}"
        drawn = [(one.file, f"frames/{one.file}.jpg", [one.bbox]) for one in read_json(path, list[_SoloFile])]
    sounds = files_by_stem(data.find("audio"), (*SOUNDS, *VIDEOS))
    items, videos = [], {}
    for name, frame, given in sorted(drawn):
        parts = re.fullmatch(pattern, name)
        if parts is None:
            raise FormatError(f"{path}: expected frames named {form}, got {name!r}.")
        # Width and height, as the authors' eval.py draws them; later code that reads two corners gets boxes without a size.
        if len(boxes := clipped([(left, top, left + width, top + height) for left, top, width, height in given])):
            image, sound = existing(data.path / frame), sounds.get(parts["video"])
            clip = (image, SoundClip(sound, float(parts["second"]), 1.0)) if image and sound else None
            items.append(Item(name, f"{frame} with audio/{parts['video']}.wav", clip, boxes))
            videos[name] = parts["video"]
    return _localization(data, items, len(drawn) - len(items), videos)


@published_as("ex-vgg-ss", ("audio", "image"), splits=("test",))
def ex_vgg_ss(data: DataFolder) -> CounterfactualRecord:
    """Test sets with added pairs whose sound is not seen. The lists of ex-flickrnet begin with flickr instead of vggss.

    vggss_test.csv    ids whose picture and sound belong together
    vggss_test_plus_silent.csv    picture id, sound id, kind; the rows of kind non-sounding do not belong together
    frames/<id>.jpg, audio/<id>.wav    (or extend_frames/ and extend_audio/)
    (the lists may be in metadata/)

    Published by Mo and Morgado, A Closer Look at Weakly-Supervised Audio-Visual Source Localization, NeurIPS 2022 (SLAVC).
    """
    # As the authors' test code: true pairs from the first list, false ones from the second; all its other rows are ignored.
    stem = {"ex-vgg-ss": "vggss", "ex-flickrnet": "flickr"}[data.layout.name]
    listed = data.find(f"{stem}_test.csv", f"metadata/{stem}_test.csv")
    added = data.find(f"{stem}_test_plus_silent.csv", f"metadata/{stem}_test_plus_silent.csv")
    pairs = {(name, name): True for name in sorted({name.strip() for (name,) in read_csv(listed, "id", header=False)})}
    for image, sound, kind in read_csv(added, "picture", "sound", "kind", header=False):
        if kind.strip() == "non-sounding":
            pairs.setdefault((image.strip(), sound.strip()), False)
    files = _frames_and_audio(data, "extend_", "")
    items = [files.item(f"{image} {sound}", image, sound, present) for (image, sound), present in pairs.items()]
    ids, clips, present, left_out = data.keep(items)
    images, sounds = map(list, zip(*clips, strict=True))
    groups = [name.split(" ")[0] for name in ids]  # a picture is asked about with several sounds
    return CounterfactualRecord(data.name, images, sounds, ids, np.array(present), left_out, groups)


ex_flickrnet = replace(ex_vgg_ss, name="ex-flickrnet")

"""Audio-visual source localisation: where in the picture is what sounds? Answered by a box, and by a map.

`proposals`: the box whose crop lies nearest to the sound is the answer. `dense`: the map of cosines of the sound with
every patch, cut into a region. Tables of the field test neither silence nor a sound that is not there, which a method
that always points at the most salient thing would pass: so silence, white noise and another item's sound are played to
every picture too, and AP says how well the largest cosine over the boxes tells the true sound from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError, TooFewRowsError, unknown_name
from cmcr.evaluation.datasets.records import LocalizationRecord
from cmcr.evaluation.detection import average_precision
from cmcr.evaluation.localization import consensus_iou, consensus_map, predicted_region, success_areas, successes
from cmcr.evaluation.tasks.dense import Cells, DenseSettings, embed_cells, up_sampled
from cmcr.evaluation.tasks.embedding import Embedded, Progress, crossing_spaces, embed_items, encoder_for
from cmcr.evaluation.tasks.places import Places, embed_boxes
from cmcr.evaluation.tasks.proposals import GridProposals, Proposals
from cmcr.evaluation.tasks.scores import OfAll, PerItem, Scores
from cmcr.evaluation.tasks.ways import Way

NOISES = 8
"""Different stretches of white noise, played to the pictures in turn."""

RULES = ("value", "share")

_DISTRACTORS = ("silence", "noise", "other_sound")
_SECONDS, _SAMPLE_RATE_HZ = 10, 48_000
_PLACES_AT_ONCE = 1024


@dataclass(frozen=True)
class GroundedRules:
    """How an answer is measured.

    Attributes:
        agreement: annotators that make a pixel count fully, each box being one's own: 1 for VGG-SS, 2 for
            Flickr-SoundNet, see `consensus_map`.
        shape: height and width of the map, at least 100 each.
        rule: how the map is cut, see `predicted_region`. `value` at 0.5 is the definition and presumes no size of a
            source. Most published code since 2021 takes `share` at 0.5, the upper half by the median, under which no
            source smaller than a quarter of the picture can reach a cIoU of 0.5.
        at: for that rule.

    Raises:
        ConfigError: a map too small for the smallest box, or an unknown rule.
    """

    agreement: int = 1
    shape: tuple[int, int] = (224, 224)
    rule: str = "value"
    at: float = 0.5

    def __post_init__(self) -> None:
        if min(self.shape) < 100:
            raise ConfigError(f"shape: expected at least 100 x 100, got {self.shape}.")
        if self.rule not in RULES:
            raise unknown_name("rule of the map", self.rule, RULES)

    def truth(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Draw the annotators' map of boxes `(k, 4)`.

        Raises:
            TooFewRowsError: no box, or none that covers a pixel.
        """
        return consensus_map([box[None] for box in boxes], self.shape, agreement=self.agreement)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a way answers for one item.

    Attributes:
        item: its position among the prepared ones.
        cosines: `(4,)` the largest cosine over the boxes, of the item's own sound, silence, noise and another sound; NaN
            where one of these could not be embedded.
        box: `(4,)` the box nearest to the item's own sound.
        map: `(H, W)` cosines of its own sound, up-sampled.
        box_overlap: cIoU of the box.
        map_overlap: cIoU of the region cut from the map.
    """

    item: int
    cosines: NDArray[np.float64]
    box: NDArray[np.float64]
    map: NDArray[np.float64]
    box_overlap: float
    map_overlap: float


@dataclass(frozen=True, eq=False)
class PreparedGrounded:
    """Sounds, boxes and patches, embedded; pictures stay where they are.

    Attributes:
        sounds: embeddings of all sounds that could be embedded; silence and noise follow the items' own.
        played: `(n, 4)` by item, which rows of `sounds` are its own, silence, noise and another item's; -1 for none.
        pictures: `(n,)` by item, its picture in `proposals` and `cells`.
        proposals: embedded crops of boxes.
        cells: embedded patches or windows.
        images: by item, its picture as the record has it.
        ids: by item.
        boxes: by item, what people drew, `(k, 4)`.
        left_out: by position in the record, why an item could not be measured.
        rules: how answers are measured.
    """

    sounds: Embedded
    played: NDArray[np.int64]
    pictures: NDArray[np.int64]
    proposals: Places
    cells: Cells
    images: Sequence[Any]
    ids: Sequence[str]
    boxes: Sequence[NDArray[np.float64]]
    left_out: Mapping[int, str]
    rules: GroundedRules

    @property
    def failed(self) -> int:
        """Items whose picture or sound could not be embedded, or for which no box was drawn."""
        return len(self.left_out)

    def score(self, way: Way) -> Scores:
        """Give success at cIoU 0.5 and the area under the success curve, by box and by map, and AP against what is not there.

        AP is of the true sounds among as many pairs of the same pictures with silence, noise or another item's sound: 0.5
        is what a score that knows nothing gets. The intervals draw both kinds of pairs apart from each other.
        """
        answers = list(self._measured(way))
        overlaps = {
            "proposals": np.array([box for box, _, _ in answers]),
            "dense": np.array([region for _, region, _ in answers]),
        }
        scores: dict[str, PerItem | OfAll] = {}
        for kind, ious in overlaps.items():
            scores[f"{kind}/cIoU@0.5"] = PerItem(successes(ious).astype(np.float64))
            scores[f"{kind}/AUC"] = PerItem(success_areas(ious))
        cosines = np.array([largest for _, _, largest in answers])
        for column, name in enumerate(_DISTRACTORS, start=1):
            if not np.isnan(cosines[:, column]).any():
                scores[f"{name}/AP"] = _precision(cosines[:, 0], cosines[:, column])
        return scores

    def answers(self, way: Way, items: Sequence[int] | None = None) -> Iterator[Answer]:
        """Answer items one by one, all of them or those named, reading only a few pictures' embeddings at a time."""
        sounds = way.rows(self.sounds)
        for group in self._groups(range(len(self.played)) if items is None else items):
            boxes = _by_picture(way, self.proposals, self.pictures[group])
            cells = _by_picture(way, self.cells.places, self.pictures[group])
            for item, box_rows, cell_rows in zip(group, boxes, cells, strict=True):
                yield self._answer(item, sounds[self.played[item]], box_rows, cell_rows)

    def _measured(self, way: Way) -> Iterator[tuple[float, float, NDArray[np.float64]]]:
        for answer in self.answers(way):  # without their maps, which for thousands of items would fill the memory
            yield answer.box_overlap, answer.map_overlap, answer.cosines

    def _answer(
        self, item: int, sounds: NDArray[np.float32], boxes: NDArray[np.float32], cells: NDArray[np.float32]
    ) -> Answer:
        cosines = boxes @ sounds.T
        largest = np.where(self.played[item] < 0, np.nan, cosines.max(axis=0).astype(np.float64))
        box = self.proposals.boxes_of(int(self.pictures[item]))[int(np.argmax(cosines[:, 0]))]
        values = up_sampled(self.cells.values(cells @ sounds[0]), self.rules.shape)
        truth = self.rules.truth(self.boxes[item])
        inside = consensus_map([box[None]], self.rules.shape) > 0
        region = predicted_region(values, rule=self.rules.rule, at=self.rules.at)
        return Answer(item, largest, box, values, consensus_iou(inside, truth), consensus_iou(region, truth))

    def _groups(self, items: Sequence[int]) -> Iterator[list[int]]:
        group, places = list[int](), 0
        for item in items:
            picture = int(self.pictures[item])
            count = max(self.proposals.count(picture), self.cells.places.count(picture))
            if group and places + count > _PLACES_AT_ONCE:
                yield group
                group, places = [], 0
            group.append(item)
            places += count
        if group:
            yield group


@dataclass(frozen=True)
class GroundedTask:
    """Find what sounds in a picture.

    Attributes:
        name: of the task.
        proposals: boxes to choose from, such as `DetectorProposals()`.
        dense: how finely to look for the map.
        rules: how answers are measured.
    """

    name: str
    proposals: Proposals = field(default_factory=GridProposals)
    dense: DenseSettings = field(default_factory=DenseSettings)
    rules: GroundedRules = field(default_factory=GroundedRules)

    def prepare(self, connection: Connection, record: LocalizationRecord, progress: Progress) -> PreparedGrounded:
        """Embed sounds, then the boxes and the patches of the pictures whose sound can be embedded.

        Raises:
            ConfigError: the connection does not have both modalities, or no item can be measured.
        """
        image_space, audio_space = crossing_spaces(connection, "image", "audio")
        encoder = encoder_for(connection, "image", image_space)
        sounds = embed_items(
            encoder_for(connection, "audio", audio_space),
            "audio",
            [*record.sounds, *_silence_and_noise()],
            progress=lambda share: progress(f"audio in {audio_space}", share),
        )
        left_out = {item: why for item, why in sounds.failed.items() if item < len(record.ids)}
        left_out |= _without_source(record.boxes, self.rules)
        asked = [item for item in range(len(record.ids)) if item not in left_out]
        _some_left(asked, record, left_out)
        images = [record.images[item] for item in asked]
        proposals, unread = embed_boxes(
            encoder, images, self.proposals.boxes, lambda share: progress(f"proposals in {image_space}", share)
        )
        cells, unseen = embed_cells(
            encoder, images, self.dense, lambda share: progress(f"patches in {image_space}", share)
        )
        left_out |= {asked[picture]: why for picture, why in {**unseen, **unread}.items()}
        pictures = [picture for picture, item in enumerate(asked) if item not in left_out]
        _some_left(pictures, record, left_out)
        items = [asked[picture] for picture in pictures]
        return PreparedGrounded(
            sounds=sounds,
            played=_played(np.array(items), len(record.ids), sounds.kept),
            pictures=np.array(pictures),
            proposals=proposals,
            cells=cells,
            images=[record.images[item] for item in items],
            ids=[record.ids[item] for item in items],
            boxes=[record.boxes[item] for item in items],
            left_out=left_out,
            rules=self.rules,
        )


def _silence_and_noise() -> list[dict[str, Any]]:
    """Make one silence and `NOISES` stretches of white noise of a tenth of full scale."""
    length, rng = _SECONDS * _SAMPLE_RATE_HZ, np.random.default_rng(0)
    silence = np.zeros(length, dtype=np.float32)
    noises = [0.1 * rng.standard_normal(length, dtype=np.float32) for _ in range(NOISES)]
    return [{"array": samples, "sampling_rate": _SAMPLE_RATE_HZ} for samples in (silence, *noises)]


def _played(items: NDArray[np.int64], silence: int, kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """Say which rows of the embedded sounds are played to each item: its own, silence, noise, another item's.

    The other item stands half the list away, because neighbours in a list are often of one class.
    """
    count = len(items)
    others = np.roll(items, -(count // 2)) if count > 1 else np.full(count, -1)
    noise = silence + 1 + np.arange(count) % NOISES
    sounds = np.stack([items, np.full(count, silence), noise, others], axis=1)
    rows = np.searchsorted(kept, sounds).clip(max=len(kept) - 1)
    return np.where(kept[rows] == sounds, rows, -1)


def _without_source(boxes: Sequence[NDArray[np.float64]], rules: GroundedRules) -> dict[int, str]:
    found = {}
    for item, drawn in enumerate(boxes):
        try:
            rules.truth(drawn)
        except TooFewRowsError as error:
            found[item] = str(error)
    return found


def _some_left(items: Sequence[int], record: LocalizationRecord, left_out: Mapping[int, str]) -> None:
    if not items:
        reason = next(iter(left_out.values()), "there are none")
        raise ConfigError(f"none of the {len(record.ids)} items of {record.name} can be measured: {reason}")


def _by_picture(way: Way, places: Places, pictures: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    rows = way.rows(places.embedded(pictures))
    return np.split(rows, np.cumsum([places.count(int(picture)) for picture in pictures])[:-1])


def _precision(true: NDArray[np.float64], false: NDArray[np.float64]) -> OfAll:
    confidence = np.concatenate([true, false])
    labels = np.repeat([True, False], [len(true), len(false)])
    return OfAll(lambda chosen: average_precision(confidence[chosen], labels[chosen]), labels)

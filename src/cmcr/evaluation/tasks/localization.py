"""Audio-visual source localisation: where in the picture is what sounds? Answered by a box, and by a map.

`proposals`: the box whose crop lies nearest to the sound is the answer. `dense`: the map of cosines of the sound with
every part of the picture, cut into a region. Tables of the field test neither silence nor a sound that is not there, which
a method that always points at the most salient thing would pass: so silence, white noise and another item's sound are
played to every picture too, and AP says how well the largest cosine over the boxes tells the true sound from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError, TooFewRowsError, unknown_name
from cmcr.evaluation.baselines import Method, chance
from cmcr.evaluation.datasets.records import LocalizationRecord, clusters_of
from cmcr.evaluation.detection import average_precision, levels
from cmcr.evaluation.intervals import Clusters
from cmcr.evaluation.localization import MAP_RULES, consensus_iou, consensus_map, predicted_region, success_areas
from cmcr.evaluation.tasks.embedding import Embedded, embed_items, encoder_of, spaces_for
from cmcr.evaluation.tasks.regions import Proposals, Regions, embed_regions, grid_boxes
from cmcr.evaluation.tasks.scores import OfAll, PerItem, Score, Scores
from cmcr.progress import Progress

NOISES = 8
"""Different stretches of white noise, played to the pictures in turn."""

MAP_SHAPE = (224, 224)
"""Pixels of the map in which regions are compared, as in published evaluations."""

_DISTRACTORS = ("silence", "noise", "other_sound")
_SECONDS, _SAMPLE_RATE_HZ = 10, 48_000


@dataclass(frozen=True, eq=False)
class Answer:
    """What a method answers for one item.

    Attributes:
        item: its position in the record.
        cosines: `(4,)` the largest cosine over the boxes, of the item's own sound, silence, noise and another sound, in the
            dtype they were computed in; NaN where one of these could not be embedded.
        box: `(4,)` the box nearest to the item's own sound, the first of several that are equally near.
        map: `(H, W)` cosines of its own sound, up-sampled.
        box_ious: cIoU of the nearest box, or of each of those that are equally near: one of them is answered, by chance.
        map_iou: cIoU of the region cut from the map.
    """

    item: int
    cosines: NDArray[np.float64]
    box: NDArray[np.float64]
    map: NDArray[np.float64]
    box_ious: NDArray[np.float64]
    map_iou: float

    @property
    def box_iou(self) -> float:
        """What the answer by a box reaches on average."""
        return float(self.box_ious.mean())


@dataclass(frozen=True, eq=False)
class PreparedLocalization:
    """Sounds and regions, embedded; pictures stay where they are.

    Attributes:
        record: the data set.
        sounds: embeddings of all sounds; silence and noise follow the items' own.
        image_space: name of the space of the regions.
        regions: by position in the record, of the items that can be measured.
        played: in the same order `(n, 4)` rows of the item's own sound, silence, noise and another item's sound among the
            embedded ones; -1 for one that could not be embedded.
        left_out: by position in the record, why an item cannot be measured.
        clusters: of items of one video.
        agreement: boxes of annotators that make a pixel count fully, see `consensus_map`.
        map_rule: how a map is cut, see `predicted_region`.
    """

    record: LocalizationRecord
    sounds: Embedded
    image_space: str
    regions: Mapping[int, Regions]
    played: NDArray[np.int64]
    left_out: Mapping[int, str]
    clusters: Clusters
    agreement: int
    map_rule: str

    @property
    def failed(self) -> int:
        """Items whose picture or sound could not be embedded, or for which no box was drawn."""
        return len(self.left_out)

    def score(self, method: Method) -> Scores:
        """Give success at cIoU 0.5 and the area under the success curve, by box and by map, and AP against what is not there.

        Where several boxes are equally near, an item counts as much as answering any of them would on average. AP is of the
        true sounds among as many pairs of the same pictures with silence, noise or another item's sound: 0.5 is what a
        score that knows nothing gets. Its interval draws a picture with both its pairs.
        """
        # Without the answers' maps, which for thousands of items would fill the memory.
        measured = [(answer.box_ious, answer.map_iou, answer.cosines) for answer in self.answers(method)]
        box_ious, map_ious, found = zip(*measured, strict=True)
        scores: dict[str, Score] = {}
        for kind, ious in (("proposals", box_ious), ("dense", [np.array([iou]) for iou in map_ious])):
            hit = np.array([(of_item >= 0.5).mean() for of_item in ious])
            areas = np.array([success_areas(of_item).mean() for of_item in ious])
            scores[f"{kind}/cIoU@0.5"] = PerItem(hit, self.clusters)
            scores[f"{kind}/AUC"] = PerItem(areas, self.clusters)
        cosines = np.array(found)
        for name, distractor in zip(_DISTRACTORS, cosines.T[1:], strict=True):
            if not np.isnan(distractor).any():
                scores[f"{name}/AP"] = _precision(cosines[:, 0], distractor, self.clusters)
        return scores

    def chance(self, seed: int) -> Scores:
        """Give what random rows score."""
        return self.score(chance(seed))

    def answers(self, method: Method, limit: int | None = None) -> Iterator[Answer]:
        """Answer items one by one, all of them or at most `limit`, spread evenly over all."""
        items, sounds = list(self.regions), method(self.sounds)
        chosen = np.linspace(0, len(items) - 1, min(limit or len(items), len(items))).round().astype(int)
        for row in chosen.tolist():
            regions, played = self.regions[items[row]], self.played[row]
            cosines = self._rows(method, regions.crops) @ sounds[played].T
            height, width, _ = regions.cells.shape
            on_map = self._rows(method, regions.cells.reshape(height * width, -1)) @ sounds[played[0]]
            values = up_sampled(on_map.reshape(height, width), MAP_SHAPE)
            near = levels(cosines[:, 0])
            nearest = regions.boxes[near == near.max()]
            truth = consensus_map(self.record.boxes[items[row]], MAP_SHAPE, agreement=self.agreement)
            yield Answer(
                items[row],
                cosines=np.where(played < 0, np.nan, cosines.max(axis=0)),
                box=nearest[0],
                map=values,
                box_ious=np.array([consensus_iou(consensus_map(box[None], MAP_SHAPE) > 0, truth) for box in nearest]),
                map_iou=consensus_iou(predicted_region(values, self.map_rule), truth),
            )

    def _rows(self, method: Method, rows: NDArray[np.float16]) -> NDArray[np.floating]:
        return method(Embedded.whole(self.image_space, "image", rows))


def prepare(
    connection: Connection,
    record: LocalizationRecord,
    progress: Progress,
    proposals: Proposals | None = None,
    agreement: int = 1,
    map_rule: str = "value",
) -> PreparedLocalization:
    """Embed the sounds, then the regions of the pictures whose sound can be embedded.

    Args:
        connection: with its encoders attached.
        record: the data set.
        progress: see `Progress`.
        proposals: gives the boxes of a picture, such as `detector()`; None takes a grid.
        agreement: boxes of annotators that make a pixel count fully: 1 for VGG-SS, 2 for Flickr-SoundNet.
        map_rule: how a map is cut, see `predicted_region`.

    Raises:
        NotConnectedError: the connection does not have both modalities.
        ConfigError: encoders that are not attached, an unknown rule, or no item can be measured.
    """
    if map_rule not in MAP_RULES:
        raise unknown_name("rule of the map", map_rule, MAP_RULES)
    grid = grid_boxes()
    image_space, audio_space = spaces_for(connection, "image", "audio")
    count = len(record.ids)
    sounds = embed_items(connection, audio_space, "audio", [*record.sounds, *silence_and_noise()], progress)
    left_out = {position: why for position, why in sounds.failed.items() if position < count}
    for position, boxes in enumerate(record.boxes):
        try:
            consensus_map(boxes, MAP_SHAPE)
        except TooFewRowsError as error:
            left_out[position] = str(error)
    regions, failed = embed_regions(
        encoder_of(connection, image_space),
        {position: image for position, image in enumerate(record.images) if position not in left_out},
        proposals or (lambda picture: grid),
        lambda share: progress(f"regions in {image_space}", share),
    )
    left_out |= failed
    if not regions:
        reason = next(iter(left_out.values()), "there are none")
        raise ConfigError(f"none of the {count} items of {record.name} can be measured: {reason}")
    rows = _played(np.array(list(regions)), count, sounds.kept)
    clusters = clusters_of(record.groups, np.array(list(regions)))
    return PreparedLocalization(record, sounds, image_space, regions, rows, left_out, clusters, agreement, map_rule)


def silence_and_noise() -> list[dict[str, Any]]:
    """Make one silence and `NOISES` stretches of white noise of a tenth of full scale, always the same."""
    length, rng = _SECONDS * _SAMPLE_RATE_HZ, np.random.default_rng(0)
    noises = [0.1 * rng.standard_normal(length, dtype=np.float32) for _ in range(NOISES)]
    return [
        {"array": samples, "sampling_rate": _SAMPLE_RATE_HZ}
        for samples in (np.zeros(length, dtype=np.float32), *noises)
    ]


def up_sampled(values: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Up-sample a map `(rows, columns)` bilinearly; a cell's value stands at its centre and holds beyond the outermost."""
    given = torch.from_numpy(values.astype(np.float64))[None, None]
    return interpolate(given, size=shape, mode="bilinear", align_corners=False)[0, 0].numpy()


def _played(items: NDArray[np.int64], silence: int, kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose the rows of the embedded sounds that are played to each item, see `PreparedLocalization.played`.

    The other item stands half the list away, because neighbours in a list are often of one class.
    """
    count = len(items)
    others = np.roll(items, -(count // 2)) if count > 1 else np.full(count, -1)
    noise = silence + 1 + np.arange(count) % NOISES
    sounds = np.stack([items, np.full(count, silence), noise, others], axis=1)
    rows = np.searchsorted(kept, sounds).clip(max=len(kept) - 1)
    return np.where(kept[rows] == sounds, rows, -1)


def _precision(true: NDArray[np.floating], false: NDArray[np.floating], clusters: Clusters) -> OfAll:
    confidence = levels(np.concatenate([true, false]))
    labels = np.repeat([True, False], [len(true), len(false)])
    pictures = np.arange(len(true)) if clusters is None else clusters
    return OfAll(lambda rows: average_precision(confidence[rows], labels[rows]), labels, np.tile(pictures, 2))

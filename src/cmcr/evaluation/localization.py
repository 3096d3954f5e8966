"""Audio-visual source localization: where in a picture is the source of a sound, against the boxes that people drew.

Boxes are `(left, top, right, bottom)` in shares of the picture's width and height, 0 to 1, so that they fit maps of any
size. A clip without a visible source has no boxes and no cIoU: whether a method claims nothing there is a question of
detection (`average_precision`, `max_f1`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmcr.errors import ConfigError, DimensionError, NonFiniteError, TooFewRowsError, unknown_name

SUCCESS_THRESHOLDS = np.arange(21) / 20
"""0, 0.05, ..., 1: where published evaluations sample the success curve."""

_AREA_WEIGHTS = np.array([0.5, *[1.0] * 19, 0.5]) / 20  # the trapezoid rule over these thresholds


def consensus_map(
    annotations: Sequence[ArrayLike], shape: tuple[int, int], *, agreement: int = 1
) -> NDArray[np.float64]:
    """How far annotators agree that a pixel is of the source, ``g = min(sum_j b_j / agreement, 1)`` (Senocak et al. 2018).

    `b_j` is 1 inside any box of annotator `j`: where the pixel's centre is in ``[left, right) x [top, bottom)``.
    Published code rounds the corners of boxes down to whole pixels of a 224 x 224 map instead, and lets every box vote for
    itself: to come as near as possible to its figures, give each box as an annotation of its own.

    Args:
        annotations: the boxes `(n, 4)` of each annotator; `n` may be 0 for some of them.
        shape: height and width of the map; published evaluations use 224 x 224 (Flickr-SoundNet also 256 x 256).
        agreement: annotators that make a pixel count fully, at least 1: 2 of 3 for Flickr-SoundNet; 1 for VGG-SS, which
            is the union of its boxes. Where fewer people drew, the map does not reach 1.

    Returns:
        `(H, W)` in [0, 1], somewhere above 0.

    Raises:
        ConfigError: agreement below 1.
        TooFewRowsError: nobody drew a box that covers a pixel.
        DimensionError: boxes that are not `(n, 4)`, or of no width or height.
    """
    if agreement < 1:
        raise ConfigError(f"agreement: expected at least 1, got {agreement}.")
    votes = np.zeros(shape)
    for boxes in annotations:
        votes += _mask(_checked_boxes(boxes), shape)
    consensus = np.minimum(votes / agreement, 1.0)
    if not consensus.any():
        raise TooFewRowsError(f"no annotator drew a box that covers a pixel of a {shape[0]} x {shape[1]} map.")
    return consensus


def predicted_region(scores: ArrayLike, *, rule: str = "value", at: float = 0.5) -> NDArray[np.bool_]:
    """Cut a map into pixels of the source and others.

    Two rules are in use; their figures cannot be compared:

    - `value`: pixels whose value, scaled so that the map runs from 0 to 1, is at least `at` (Senocak et al., CVPR 2018).
    - `share`: the highest `at` of the pixels, at 0.5 the upper half: the published code of most tables on VGG-SS and
      Flickr-SoundNet since 2021. Pixels equal to the lowest of them belong too (some of that code leaves them out). It
      presumes how large a source is.

    A constant map points nowhere: nothing is claimed, under either rule.

    Args:
        scores: `(H, W)` higher is more likely; any scale.
        rule: `value` or `share`.
        at: above 0 and up to 1 for `value`, below 1 for `share`.

    Returns:
        `(H, W)`.

    Raises:
        ConfigError: an unknown rule, or `at` out of range.
        DimensionError: not a map.
        NonFiniteError: NaN or infinity.
    """
    given = np.asarray(scores, dtype=np.float64)
    if given.ndim != 2 or given.size == 0:
        raise DimensionError(f"expected a map (H, W), got {given.shape}.")
    if not np.isfinite(given).all():
        raise NonFiniteError("map: NaN or infinity.")
    if rule not in ("value", "share"):
        raise unknown_name("rule", rule, ("value", "share"))
    if not 0 < at <= 1 or (rule == "share" and at == 1):
        raise ConfigError(f"at: expected above 0 and up to 1 (below 1 for 'share'), got {at}.")
    low, high = given.min(), given.max()
    if low == high:
        return np.zeros(given.shape, dtype=np.bool_)
    if rule == "value":
        return (given - low) / (high - low) >= at
    return given >= np.sort(given, axis=None)[min(int(given.size * (1 - at)), given.size - 1)]


def consensus_iou(region: NDArray[np.bool_], consensus: NDArray[np.floating]) -> float:
    """Overlap of a predicted region with the annotators' map: cIoU of Senocak et al., CVPR 2018.

    ``sum_{i in A} g_i / (sum_i g_i + |{i in A : g_i = 0}|)``, `A` the region and `g` the map. Where `g` is 0 or 1 it is
    the usual intersection over union.

    Args:
        region: `(H, W)` from `predicted_region`.
        consensus: `(H, W)` from `consensus_map`.

    Returns:
        In [0, 1].

    Raises:
        DimensionError: shapes that differ.
        TooFewRowsError: a map without a source.
    """
    claimed, truth = np.asarray(region, dtype=np.bool_), np.asarray(consensus, dtype=np.float64)
    if claimed.shape != truth.shape:
        raise DimensionError(f"expected region and consensus of one shape, got {claimed.shape} and {truth.shape}.")
    if not truth.any():
        raise TooFewRowsError("the consensus map marks no source: cIoU is undefined.")
    return float(truth[claimed].sum() / (truth.sum() + (truth[claimed] == 0).sum()))


def successes(ious: ArrayLike, threshold: float = 0.5) -> NDArray[np.bool_]:
    """Whether each item, `(n,)`, is localized, ``IoU >= threshold``; the mean is the success ratio, cIoU@0.5 in tables.

    Args:
        ious: `(n,)` cIoU or IoU of each item.
        threshold: 0 to 1.

    Raises:
        ConfigError: a threshold out of range.
        TooFewRowsError: no items.
        DimensionError: not `(n,)`, or values outside 0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"threshold: expected 0 to 1, got {threshold}.")
    return _overlaps(ious) >= threshold


def success_areas(ious: ArrayLike) -> NDArray[np.float64]:
    """Area under each item's own success curve; the mean is the AUC of the success ratio over the thresholds.

    The trapezoid rule over the 21 `SUCCESS_THRESHOLDS`, as published evaluations have it. At threshold 0 everything
    succeeds, so that the area is never under 0.025; it is 1 for a perfect overlap.

    Args:
        ious: `(n,)` cIoU or IoU of each item.

    Returns:
        `(n,)` in [0.025, 1].

    Raises:
        TooFewRowsError, DimensionError: as `successes`.
    """
    return (_overlaps(ious)[:, None] >= SUCCESS_THRESHOLDS) @ _AREA_WEIGHTS


def _mask(boxes: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mark the pixels whose centre is in any of the boxes."""
    y, x = ((np.arange(size) + 0.5) / size for size in shape)
    across = (boxes[:, :1] <= x) & (x < boxes[:, 2:3])
    down = (boxes[:, 1:2] <= y) & (y < boxes[:, 3:])
    return np.logical_or.reduce(down[:, :, None] & across[:, None, :], axis=0)


def _checked_boxes(boxes: ArrayLike) -> NDArray[np.float64]:
    given = np.asarray(boxes, dtype=np.float64)
    if given.size == 0:
        return given.reshape(0, 4)
    if given.ndim != 2 or given.shape[1] != 4 or not (given[:, 2:] > given[:, :2]).all():  # so is NaN refused
        raise DimensionError(
            "expected boxes (n, 4) as left, top, right, bottom with right > left and bottom > top, got "
            f"{given.tolist()!r:.120}."
        )
    return given


def _overlaps(ious: ArrayLike) -> NDArray[np.float64]:
    given = np.asarray(ious, dtype=np.float64)
    if given.size == 0:
        raise TooFewRowsError("expected at least one overlap, got none.")
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise DimensionError(
            f"expected overlaps (n,) from 0 to 1, got {given.shape} from {given.min()} to {given.max()}."
        )
    return given

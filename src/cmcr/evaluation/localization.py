"""Audio-visual source localization: where in a picture is the source of a sound, against the boxes that people drew.

Boxes are `(left, top, right, bottom)` in shares of the picture's width and height, 0 to 1, so that they fit maps of any
size. A clip without a visible source has no boxes and no cIoU: whether a method claims nothing there is a question of
detection (`average_precision`, `max_f1`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmcr.errors import TooFewRowsError
from cmcr.evaluation.detection import ROUNDING

Boxes = NDArray[np.float64]
"""`(k, 4)` left, top, right, bottom, with right > left and bottom > top."""

MAP_RULES = ("value", "share")
CUT = 0.5
"""Where a map is cut: at half its range, or so that half of its pixels are claimed."""

SUCCESS_THRESHOLDS = np.arange(21) / 20
"""0, 0.05, ..., 1: where published evaluations sample the success curve."""

_AREA_WEIGHTS = np.array([0.5, *[1.0] * 19, 0.5]) / 20  # the trapezoid rule over these thresholds


def consensus_map(boxes: Boxes, shape: tuple[int, int], *, agreement: int = 1) -> NDArray[np.float64]:
    """How far annotators agree that a pixel is of the source, ``g = min(sum_j b_j / agreement, 1)`` (Senocak et al. 2018).

    `b_j` is 1 inside box `j`: where the pixel's centre is in ``[left, right) x [top, bottom)``. Published code rounds the
    corners of boxes down to whole pixels of a 224 x 224 map instead.

    Args:
        boxes: `(k, 4)` of all annotators; each votes for itself, as in published code.
        shape: height and width of the map; published evaluations use 224 x 224 (Flickr-SoundNet also 256 x 256).
        agreement: boxes that make a pixel count fully, at least 1: 2 for Flickr-SoundNet; 1 for VGG-SS, which is the
            union of its boxes. Where fewer people drew, the map does not reach 1.

    Returns:
        `(H, W)` in [0, 1], somewhere above 0.

    Raises:
        TooFewRowsError: nobody drew a box that covers a pixel.
    """
    y, x = ((np.arange(size) + 0.5) / size for size in shape)
    across = (boxes[:, :1] <= x) & (x < boxes[:, 2:3])
    down = (boxes[:, 1:2] <= y) & (y < boxes[:, 3:])
    consensus = np.minimum(down.T.astype(np.float64) @ across / agreement, 1.0)
    if not consensus.any():
        raise TooFewRowsError(f"no annotator drew a box that covers a pixel of a {shape[0]} x {shape[1]} map.")
    return consensus


def predicted_region(scores: NDArray[np.floating], rule: str = "value") -> NDArray[np.bool_]:
    """Cut a map into pixels of the source and others.

    Two rules are in use; their figures cannot be compared:

    - `value`: pixels whose value, scaled so that the map runs from 0 to 1, is at least 0.5 (Senocak et al., CVPR 2018). It
      is the definition, and presumes no size of a source.
    - `share`: the upper half of the pixels: the published code of most tables on VGG-SS and Flickr-SoundNet since 2021.
      Pixels equal to the lowest of them belong too (some of that code leaves them out). No source smaller than a quarter of
      the picture can then reach a cIoU of 0.5.

    A map that is constant, up to the rounding of float32 cosines, points nowhere: nothing is claimed, under either rule.

    Args:
        scores: `(H, W)` finite, higher is more likely; any scale.
        rule: one of `MAP_RULES`.

    Returns:
        `(H, W)`.
    """
    low, high = scores.min(), scores.max()
    if high - low <= ROUNDING * np.finfo(np.float32).eps * max(abs(low), abs(high)):
        return np.zeros(scores.shape, dtype=np.bool_)
    if rule == "value":
        return (scores - low) / (high - low) >= CUT
    return scores >= np.sort(scores, axis=None)[int(scores.size * (1 - CUT))]


def consensus_iou(region: NDArray[np.bool_], consensus: NDArray[np.float64]) -> float:
    """Overlap of a predicted region with the annotators' map: cIoU of Senocak et al., CVPR 2018.

    ``sum_{i in A} g_i / (sum_i g_i + |{i in A : g_i = 0}|)``, `A` the region and `g` the map. Where `g` is 0 or 1 it is
    the usual intersection over union.

    Args:
        region: `(H, W)` from `predicted_region`.
        consensus: `(H, W)` from `consensus_map`.

    Returns:
        In [0, 1].
    """
    return float(consensus[region].sum() / (consensus.sum() + (consensus[region] == 0).sum()))


def success_areas(ious: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under each item's own success curve; the mean is the AUC of the success ratio over the thresholds.

    The trapezoid rule over the 21 `SUCCESS_THRESHOLDS`, as published evaluations have it. At threshold 0 everything
    succeeds, so that the area is never under 0.025; it is 1 for a perfect overlap.

    Args:
        ious: `(n,)` cIoU or IoU of each item, in [0, 1].

    Returns:
        `(n,)` in [0.025, 1].
    """
    return (ious[:, None] >= SUCCESS_THRESHOLDS) @ _AREA_WEIGHTS

"""Published figures to stand beside ours. They are quoted, not measured here; percent.

A row is first-hand where the figure stands in the paper that made it, second-hand where it was read in a table of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

_C_MCR = "C-MCR (Wang et al., NeurIPS 2023), in tables of FreeBind (ICML 2024) and OmniBind (2024)"
_EX_MCR = "Ex-MCR (Wang et al., NeurIPS 2024)"
_IMAGEBIND = "ImageBind (trained on pairs), in a table of Ex-MCR"
_CLAP = "CLAP, its own space, in a table of Ex-MCR"
_CLIP = "CLIP ViT-B/32, its own space, in a table of Ex-MCR"


class Quoted(TypedDict):
    """A row of a published table: model and paper, its figures by key in percent, and whether another's table was read."""

    source: str
    figures: Mapping[str, float]
    second_hand: bool


def _retrieval(source: str, top_1: float, top_5: float) -> Quoted:
    """Quote hit rates, which are means of both directions."""
    return _row(source, {"mean/R@1": top_1, "mean/R@5": top_5})


def _row(source: str, figures: Mapping[str, float]) -> Quoted:
    return Quoted(source=source, figures=figures, second_hand=" in a table " in source or " in tables " in source)


PUBLISHED: Mapping[str, tuple[Quoted, ...]] = {
    "retrieval/vgg-ss": (
        _retrieval(_C_MCR, 1.94, 7.69),
        _retrieval(_EX_MCR, 2.13, 8.13),
        _retrieval(_IMAGEBIND, 14.82, 35.67),
    ),
    "retrieval/flickr-soundnet": (
        _retrieval(_C_MCR, 1.39, 5.97),
        _retrieval(_EX_MCR, 1.57, 5.94),
        _retrieval(_IMAGEBIND, 7.68, 20.79),
    ),
    "retention/audiocaps": (_retrieval(_CLAP, 40.25, 76.21), _retrieval(_C_MCR, 15.76, 41.37)),
    "retention/clotho": (_retrieval(_CLAP, 18.46, 41.70), _retrieval(_C_MCR, 8.37, 24.86)),
    "retention/coco": (_retrieval(_CLIP, 40.24, 64.78), _retrieval(_C_MCR, 16.67, 37.04)),
    "retention/flickr30k": (_retrieval(_CLIP, 71.89, 90.55), _retrieval(_C_MCR, 34.16, 63.64)),
    "classification/modelnet40": (
        _row(_EX_MCR, {"point_cloud/top-1": 66.53, "point_cloud/top-5": 93.60}),
        # The colours of clouds, which the model that cmcr opens does not see.
        _row("ULIP-2 with colours, 64 prompts (Xue et al., CVPR 2024; trained on pairs)", {"point_cloud/top-1": 84.7}),
    ),
    "classification/esc-50": (
        _row("ImageBind (Girdhar et al., CVPR 2023; trained on pairs)", {"audio/top-1": 66.9}),
        _row("AudioCLIP (Guzhov et al., ICASSP 2022; trained on pairs)", {"audio/top-1": 69.40}),
    ),
    "classification/imagenet": (
        _row(_CLIP, {"image/top-1": 60.58}),
        _row("ImageBind (Girdhar et al., CVPR 2023; trained on pairs)", {"image/top-1": 77.7}),
    ),
}
"""By the name of the run."""

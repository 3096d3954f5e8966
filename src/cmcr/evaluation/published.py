"""Published figures to stand beside ours. They are quoted, not measured here; percent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

_C_MCR = "C-MCR (Wang et al., NeurIPS 2023), as tabulated by Ex-MCR (Wang et al., NeurIPS 2024)"
_EX_MCR = "Ex-MCR (Wang et al., NeurIPS 2024)"
_IMAGEBIND = "ImageBind (trained on pairs), same table"
_CLAP = "CLAP, its own space, same table"
_CLIP = "CLIP ViT-B/32, its own space, same table"


class Quoted(TypedDict):
    """A row of a published table: model and paper, and its figures by key, in percent."""

    source: str
    figures: Mapping[str, float]


def _retrieval(source: str, top_1: float, top_5: float) -> Quoted:
    """Quote hit rates, which are means of both directions."""
    return Quoted(source=source, figures={"mean/R@1": top_1, "mean/R@5": top_5})


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
        Quoted(source=_EX_MCR, figures={"point_cloud/top-1": 66.53, "point_cloud/top-5": 93.60}),
        Quoted(source="ULIP-2 (trained on pairs)", figures={"point_cloud/top-1": 84.7}),
    ),
}
"""By the name of the run."""

"""Published figures to stand beside ours. They are quoted, not measured here; percent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

_CMCR = "C-MCR (Wang et al., NeurIPS 2023), as tabulated by Ex-MCR (Wang et al., NeurIPS 2024)"
_EXMCR = "Ex-MCR (Wang et al., NeurIPS 2024)"


class Quoted(TypedDict):
    """A row of a published table.

    Attributes:
        source: model and paper.
        figures: by key, in percent.
    """

    source: str
    figures: Mapping[str, float]


def _retrieval(top_1: float, top_5: float) -> dict[str, float]:
    return {"mean/R@1": top_1, "mean/R@5": top_5}


PUBLISHED: Mapping[str, tuple[Quoted, ...]] = {
    "retrieval/vgg-ss": (
        Quoted(source=_CMCR, figures=_retrieval(1.94, 7.69)),
        Quoted(source=_EXMCR, figures=_retrieval(2.13, 8.13)),
        Quoted(source="ImageBind (trained on pairs), same table", figures=_retrieval(14.82, 35.67)),
    ),
    "retrieval/flickr-soundnet": (
        Quoted(source=_CMCR, figures=_retrieval(1.39, 5.97)),
        Quoted(source=_EXMCR, figures=_retrieval(1.57, 5.94)),
        Quoted(source="ImageBind (trained on pairs), same table", figures=_retrieval(7.68, 20.79)),
    ),
    "retention/audiocaps": (
        Quoted(source="CLAP, its own space, same table", figures=_retrieval(40.25, 76.21)),
        Quoted(source=_CMCR, figures=_retrieval(15.76, 41.37)),
    ),
    "retention/clotho": (
        Quoted(source="CLAP, its own space, same table", figures=_retrieval(18.46, 41.70)),
        Quoted(source=_CMCR, figures=_retrieval(8.37, 24.86)),
    ),
    "retention/coco": (
        Quoted(source="CLIP ViT-B/32, its own space, same table", figures=_retrieval(40.24, 64.78)),
        Quoted(source=_CMCR, figures=_retrieval(16.67, 37.04)),
    ),
    "retention/flickr30k": (
        Quoted(source="CLIP ViT-B/32, its own space, same table", figures=_retrieval(71.89, 90.55)),
        Quoted(source=_CMCR, figures=_retrieval(34.16, 63.64)),
    ),
    "classification/modelnet40": (
        Quoted(source=_EXMCR, figures={"point_cloud/top-1": 66.53, "point_cloud/top-5": 93.60}),
        Quoted(source="ULIP-2 (trained on pairs)", figures={"point_cloud/top-1": 84.7}),
    ),
}
"""By the name of the run. Hit rates are means of both directions."""

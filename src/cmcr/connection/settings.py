"""The settings of C-MCR: one frozen record. Those of the other methods stand beside the methods."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from cmcr.engine.precision import Precision
from cmcr.errors import ConfigError

PUBLISHED_BATCH = 10_240

Width = Annotated[int, Field(ge=1, le=10**9)]  # torch cannot even count the bytes of much larger ones
Widths = Annotated[tuple[Width, ...], Field(strict=False)]  # JSON has lists
Above0 = Annotated[float, Field(gt=0, allow_inf_nan=False)]
AtLeast0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class ProjectorShape:
    """The layers of a projector: each is a linear layer and batch normalisation, all but the last end in a ReLU.

    Attributes:
        width: width K of the common space.
        hidden: widths of the layers before the last, in order; empty for a single layer.
        final_relu: end the last layer in a ReLU too.
    """

    width: Width
    hidden: Widths = ()
    final_relu: bool = False


CLAP_CLIP_SHAPE = ProjectorShape(width=512, hidden=(1024,))
"""Linear(512, 1024) BN ReLU Linear(1024, 512) BN: the published CLAP-CLIP projectors."""

ULIP_CLIP_SHAPE = ProjectorShape(width=512, final_relu=True)
"""Linear(512, 512) BN ReLU: the published ULIP-CLIP projectors."""


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class MethodSettings:
    """What every method has: how much of a projected row is the space's own (see `Connection`).

    Attributes:
        own_share: w, from 0 to below 1. At 0.98 a space keeps its own retrieval, to a thousandth or so, and the cosines
            across spaces are a fiftieth of what they were; 0 leaves the parents' own blocks out.
        own_width: reduce own blocks to so many axes by PCA where a space is wider; None keeps them whole.
    """

    own_share: Annotated[float, Field(ge=0, lt=1)] = 0.98
    own_width: Width | None = None

    def swapped(self) -> MethodSettings:
        """Give the settings for the same two spaces in the other order."""
        return self

    @model_validator(mode="before")
    @classmethod
    def _plain_numbers(cls, given: Any) -> Any:
        """Accept numpy's numbers as Python's, which JSON can hold."""
        named = getattr(given, "kwargs", None) or {}
        for name, value in named.items():
            if isinstance(value, np.generic):
                named[name] = value.item()
        return given


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Settings(MethodSettings):
    """How C-MCR connects two spaces. Defaults are the published ones where the paper states them.

    Attributes:
        own_share, own_width: see `MethodSettings`.
        centring: subtract from every row the mean of its modality, as far as the row tells which it is (`Centring`): what
            a wide modality gap needs (not in the paper, nor in the published recipes).
        consistency_temperature: tau_1 of the semantic consistency (paper: 0.01).
        normalize_consistency: make the softmax mean a unit row before the noise (paper: silent).
        semantic_consistency: False lets the overlap's own embeddings stand in for the consistent rows, so that no memory
            is used: the paper's ablation.
        noise_variance: s^2 of the semantic completion at width 512 (paper: 0.004); 0 switches it off.
        rescale_noise: keep the angle of the noise at other widths (see `semantic_completion`).
        ttc_temperature: tau_2 of L_ttc (paper: 0.01).
        avc_temperature: tau_3 of L_avc (paper: 0.01).
        ttc_weight: weight of L_ttc (paper: 1).
        avc_weight: weight of L_avc (paper: 1).
        intra_weight: lambda of L_intra (paper: 0.1).
        intra_distance: "euclidean" or "squared" (sources disagree).
        batch_norm: whether the two modalities of a space pass through batch normalisation "together" or "apart" in
            training (paper: silent).
        width: width of the common space; None is the larger width of the two spaces.
        hidden: widths of the projector's inner layers; None is one layer of twice `width` (the published CLAP-CLIP
            shape); empty is a single layer.
        final_relu: end the projector in a ReLU, as the published ULIP-CLIP projectors do.
        epochs: passes over the overlap (paper: 36).
        batch_size: overlap items per step. None is the paper's 10,240, or a sixteenth of an overlap that is smaller
            than 16 such batches, so that it still gets enough steps.
        learning_rate: of AdamW, decayed to zero along a cosine (paper: 1e-3).
        weight_decay: of AdamW (paper: silent; PyTorch's default, 0.01).
        precision: "float32"; or "bfloat16", in which the large products of semantic consistency and of the losses'
            gradients are faster and coarser. Projectors, logits, sums and the optimiser stay in float32.
    """

    centring: bool = True
    consistency_temperature: Above0 = 0.01
    normalize_consistency: bool = True
    semantic_consistency: bool = True
    noise_variance: AtLeast0 = 0.004
    rescale_noise: bool = True
    ttc_temperature: Above0 = 0.01
    avc_temperature: Above0 = 0.01
    ttc_weight: AtLeast0 = 1.0
    avc_weight: AtLeast0 = 1.0
    intra_weight: AtLeast0 = 0.1
    intra_distance: Literal["euclidean", "squared"] = "euclidean"
    batch_norm: Literal["together", "apart"] = "together"
    width: Annotated[Width, Field(le=10**8)] | None = None  # a hidden layer is twice as wide
    hidden: Widths | None = None
    final_relu: bool = False
    epochs: Width = 36
    batch_size: Annotated[int, Field(ge=2)] | None = None
    learning_rate: Above0 = 1e-3
    weight_decay: AtLeast0 = 0.01
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.ttc_weight + self.avc_weight == 0:
            raise ValueError("ttc_weight and avc_weight: one of them must be above 0, or nothing is learned")
        return self

    def projector_shape(self, left_width: int, right_width: int) -> ProjectorShape:
        """Choose the projectors' layers for two spaces of these widths."""
        width = max(left_width, right_width) if self.width is None else self.width
        hidden = (2 * width,) if self.hidden is None else self.hidden
        return ProjectorShape(width=width, hidden=hidden, final_relu=self.final_relu)

    def rows_per_step(self, overlap_rows: int) -> int:
        """How many overlap items one training step takes; never more than there are."""
        wanted = self.batch_size or max(2, min(PUBLISHED_BATCH, overlap_rows // 16))
        return min(wanted, overlap_rows)


PUBLISHED: dict[str, Any] = {
    # Every value is pinned here, so that better defaults never change what "published" means.
    "consistency_temperature": 0.01,
    "normalize_consistency": True,
    "semantic_consistency": True,
    "noise_variance": 0.004,
    "rescale_noise": False,
    "ttc_temperature": 0.01,
    "avc_temperature": 0.01,
    "ttc_weight": 1.0,
    "avc_weight": 1.0,
    "intra_weight": 0.1,
    "intra_distance": "euclidean",
    "batch_norm": "together",
    "epochs": 36,
    "batch_size": PUBLISHED_BATCH,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "precision": "float32",
    "centring": False,
    "own_share": 0.0,
    "own_width": None,
}
"""The published recipe, as far as it is known."""


def check_seed(seed: object) -> int:
    """Return a seed as an int; raise a `ConfigError` unless it is a whole number, 0 or more."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ConfigError(f"seed: expected a whole number, 0 or more, got {seed!r}.")
    return int(seed)

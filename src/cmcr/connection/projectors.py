"""The small networks that carry each space into the common one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmcr.connection.batch_norm import normalized_batch
from cmcr.connection.peers import Peers
from cmcr.connection.unit_rows import unit_rows
from cmcr.errors import ConfigError, DimensionError

BatchNormMode = Literal["together", "apart"]


@dataclass(frozen=True)
class ProjectorShape:
    """The layers of a projector: each is a linear layer and batch normalisation, all but the last end in a ReLU.

    The two shapes of the published weights are `CLAP_CLIP_SHAPE` and `ULIP_CLIP_SHAPE`.

    Attributes:
        width: width K of the common space, at least 1.
        hidden: widths of the layers before the last, in order; empty for a single layer.
        final_relu: end the last layer in a ReLU too.
    """

    width: int
    hidden: tuple[int, ...] = ()
    final_relu: bool = False

    def __post_init__(self) -> None:
        if any(isinstance(w, bool) or not isinstance(w, int) or w < 1 for w in (self.width, *self.hidden)):
            raise ConfigError(
                f"projector widths must be whole numbers of at least 1, got {self.hidden} and {self.width}."
            )


CLAP_CLIP_SHAPE = ProjectorShape(width=512, hidden=(1024,))
"""Linear(512, 1024) BN ReLU Linear(1024, 512) BN: the published CLAP-CLIP projectors."""

ULIP_CLIP_SHAPE = ProjectorShape(width=512, final_relu=True)
"""Linear(512, 512) BN ReLU: the published ULIP-CLIP projectors."""


class Projector(nn.Module):
    """Carry the embeddings of one space into the common space; both modalities of the space share it.

    Args:
        width_in: width D of the space.
        shape: the layers.
    """

    def __init__(self, width_in: int, shape: ProjectorShape) -> None:
        super().__init__()
        self.width_in = width_in
        self.shape = shape
        widths = (width_in, *shape.hidden, shape.width)
        self.linears = nn.ModuleList(_linear(a, b) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(b, dtype=torch.float32) for b in widths[1:])

    def forward(self, embeddings: Tensor, peers: Peers | None = None) -> Tensor:
        """Project: `(B, D)` -> `(B, K)` unit rows (a row that a final ReLU leaves empty stays zero).

        In training, batch normalisation takes its statistics over the rows of all `peers`.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.width_in:
            raise DimensionError(f"expected shape (B, {self.width_in}), got {tuple(embeddings.shape)}.")
        hidden = embeddings
        last = len(self.linears) - 1
        for depth, (linear, norm) in enumerate(zip(self.linears, self.norms, strict=True)):
            hidden = normalized_batch(cast(nn.BatchNorm1d, norm), linear(hidden), peers)
            if depth < last or self.shape.final_relu:
                hidden = F.relu(hidden, inplace=True)
        return unit_rows(hidden)

    def project_both(
        self, both: Tensor, batch_norm: BatchNormMode, peers: Peers | None = None
    ) -> tuple[Tensor, Tensor]:
        """Project the two modalities of one training batch.

        Args:
            both: `(2 B, D)` rows of the overlap, then as many of the outer modality.
            batch_norm: `"together"` normalises both by common statistics, as inference does; `"apart"` makes two
                calls, each with the statistics of its own modality. The paper does not say which it means.
            peers: the processes that hold the rest of the batch; None for none.

        Returns:
            Two tensors `(B, K)` of unit rows.
        """
        count = len(both) // 2
        if batch_norm == "apart":
            return self(both[:count], peers), self(both[count:], peers)
        # Not two slices: the gradient of each would be as large as both, and nearly all zeros.
        first, second = self(both, peers).split(count)
        return first, second


def _linear(width_in: int, width_out: int) -> nn.Linear:
    """Make a linear layer whose bias is fixed at zero.

    Batch normalisation cancels the bias: its gradient is rounding noise, which Adam would blow up to full steps. It is
    there because the published weights have it.
    """
    linear = nn.Linear(width_in, width_out, dtype=torch.float32)
    nn.init.zeros_(linear.bias)
    linear.bias.requires_grad_(False)
    return linear

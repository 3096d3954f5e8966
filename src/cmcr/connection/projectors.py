"""The small networks that carry each space into the common one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmcr.connection.maps import Map
from cmcr.connection.settings import ProjectorShape
from cmcr.errors import DimensionError


class Projector(Map):
    """Carry the embeddings of one space into the common space; both modalities of the space share it.

    Args:
        width_in: width D of the space.
        shape: the layers.
    """

    kind = "projector"

    def __init__(self, width_in: int, shape: ProjectorShape | Mapping[str, Any]) -> None:
        super().__init__()
        shape = shape if isinstance(shape, ProjectorShape) else ProjectorShape(**shape)
        self.width_in, self.width = width_in, shape.width
        self.shape = shape
        widths = (width_in, *shape.hidden, shape.width)
        self.linears = nn.ModuleList(_linear(a, b) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(b, dtype=torch.float32) for b in widths[1:])

    def config(self) -> dict[str, Any]:
        """See `Map.config`."""
        return {"kind": self.kind, "width_in": self.width_in, "shape": asdict(self.shape)}

    def forward(self, embeddings: Tensor) -> Tensor:
        """Project: `(B, D)` -> `(B, K)` unit rows (a row that a final ReLU leaves empty stays zero)."""
        if embeddings.ndim != 2 or embeddings.shape[1] != self.width_in:
            raise DimensionError(f"expected shape (B, {self.width_in}), got {tuple(embeddings.shape)}.")
        hidden = embeddings
        last = len(self.linears) - 1
        for depth, (linear, norm) in enumerate(zip(self.linears, self.norms, strict=True)):
            hidden = norm(linear(hidden))
            if depth < last or self.shape.final_relu:
                hidden = F.relu(hidden, inplace=True)
        return F.normalize(hidden, dim=1)

    def project_both(self, overlap: Tensor, consistent: Tensor, batch_norm: str) -> tuple[Tensor, Tensor]:
        """Project the two modalities of one training batch.

        Args:
            overlap: `(B, D)` rows of the overlap.
            consistent: `(B, D)` their semantically consistent rows.
            batch_norm: `"together"` normalises both by common statistics, as inference does; `"apart"` makes two
                calls, each with the statistics of its own modality. The paper does not say which it means.

        Returns:
            Two tensors `(B, K)` of unit rows.
        """
        if batch_norm == "apart":
            return self(overlap), self(consistent)
        # Not two slices: the gradient of each would be as large as both, and nearly all zeros.
        first, second = self(torch.cat([overlap, consistent])).split(len(overlap))
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

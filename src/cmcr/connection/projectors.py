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


class ResidualProjector(Map):
    """A linear map and a perceptron that corrects it: ``N(x W + V relu(BN(U x)))``.

    It starts as the linear map alone, a closed form, for V starts at zero; training moves all of it (not in the paper).

    Args:
        width_in: width D of the space.
        width: width K of the common space.
        hidden: width of the perceptron's inner layer.
    """

    kind = "residual"

    def __init__(self, width_in: int, width: int, hidden: int) -> None:
        super().__init__()
        self.width_in, self.width, self.hidden = width_in, width, hidden
        self.straight = nn.Linear(width_in, width, bias=False, dtype=torch.float32)
        self.inner = nn.Linear(width_in, hidden, bias=False, dtype=torch.float32)
        self.norm = nn.BatchNorm1d(hidden, dtype=torch.float32)
        self.outer = nn.Linear(hidden, width, bias=False, dtype=torch.float32)
        nn.init.zeros_(self.outer.weight)

    def config(self) -> dict[str, Any]:
        """See `Map.config`."""
        return {**super().config(), "hidden": self.hidden}

    def forward(self, embeddings: Tensor) -> Tensor:
        """Project: `(B, D)` -> `(B, K)` unit rows."""
        correction = self.outer(F.relu(self.norm(self.inner(embeddings)), inplace=True))
        return F.normalize(self.straight(embeddings) + correction, dim=1)

    def pulled_back(self, start: Tensor, share: float) -> ResidualProjector:
        """Move the weights back towards the closed form they started from (weight-space ensembles, Wortsman et al. 2022).

        Args:
            start: `(D, K)` the linear map before training.
            share: of the way from the start to what was trained, from 0 to 1.
        """
        with torch.no_grad():
            self.outer.weight.mul_(share)
            self.straight.weight.lerp_(start.T.to(self.straight.weight), 1 - share)
        return self


def _linear(width_in: int, width_out: int) -> nn.Linear:
    """Make a linear layer whose bias is fixed at zero.

    Batch normalisation cancels the bias: its gradient is rounding noise, which Adam would blow up to full steps. It is
    there because the published weights have it.
    """
    linear = nn.Linear(width_in, width_out, dtype=torch.float32)
    nn.init.zeros_(linear.bias)
    linear.bias.requires_grad_(False)
    return linear

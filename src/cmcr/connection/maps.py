"""What carries rows of a space into the common space, besides the perceptron of the paper, and how such maps combine.

Every map takes unit rows `(B, D)` and gives rows `(B, K)` no longer than one, whose inner products compare items of two
spaces. A map is its `config`, JSON that names its kind and sizes, and its tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Map(nn.Module):
    """A map from the rows of one space to rows of the common space.

    Attributes:
        kind: its name in `config`.
        width_in: width D of the space.
        width: width K of what it gives.
        unit: whether it gives unit rows; else they may be shorter.
    """

    kinds: ClassVar[dict[str, type[Map]]] = {}
    kind: ClassVar[str]
    width_in: int
    width: int
    unit: bool = True

    def __init_subclass__(cls) -> None:
        Map.kinds[cls.kind] = cls

    def config(self) -> dict[str, Any]:
        """Say, as JSON can hold it, what the map is besides its tensors; `map_from` reads it."""
        return {"kind": self.kind, "width_in": self.width_in, "width": self.width}


class Identity(Map):
    """Leave rows as they are: ``x``. The map of a space that is the base of a connection."""

    kind = "identity"

    def __init__(self, width_in: int, width: int | None = None) -> None:
        super().__init__()
        self.width_in = self.width = width_in

    def forward(self, rows: Tensor) -> Tensor:
        """Return the rows."""
        return rows


class Centring(Map):
    """Subtract from each row the mean of its modality, which the row itself tells: ``N(x - r m_0 - (1 - r) m_1)``.

    ``r = sigmoid(w . x + b)`` is the chance that a row is of the first modality, by linear discriminant analysis. Where
    the modalities of a space lie apart it is 0 or 1; where they do not, their means are the same and it does not matter.
    So a row can be projected by who does not know its modality, and gets the same result as by who does.
    """

    kind = "centring"
    means: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, width_in: int, width: int | None = None) -> None:
        super().__init__()
        self.width_in = self.width = width_in
        self.register_buffer("means", torch.zeros(2, width_in, dtype=torch.float32))
        self.register_buffer("weight", torch.zeros(width_in, dtype=torch.float32))
        self.register_buffer("bias", torch.zeros((), dtype=torch.float32))

    def forward(self, rows: Tensor) -> Tensor:
        """Centre: `(B, D)` -> `(B, D)` unit rows."""
        share = torch.sigmoid(rows @ self.weight + self.bias)[:, None]
        return F.normalize(rows - share * self.means[0] - (1 - share) * self.means[1], dim=1)


class Shift(Map):
    """Put centred rows where a modality of a space lies: ``N(s x + m)``, its mean m and its spread s around it."""

    kind = "shift"
    mean: Tensor
    scale: Tensor

    def __init__(self, width_in: int, width: int | None = None) -> None:
        super().__init__()
        self.width_in = self.width = width_in
        self.register_buffer("mean", torch.zeros(width_in, dtype=torch.float32))
        self.register_buffer("scale", torch.ones((), dtype=torch.float32))

    def forward(self, rows: Tensor) -> Tensor:
        """Shift: `(B, D)` -> `(B, D)` unit rows."""
        return F.normalize(self.scale * rows + self.mean, dim=1)


class Linear(Map):
    """A linear map, ``N(x W)``, ``W`` `(D, K)`."""

    kind = "linear"
    weight: Tensor

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.width_in, self.width = width_in, width
        self.register_buffer("weight", torch.zeros(width_in, width, dtype=torch.float32))

    def forward(self, rows: Tensor) -> Tensor:
        """Map: `(B, D)` -> `(B, K)` unit rows."""
        return F.normalize(rows @ self.weight, dim=1)


class Posterior(Map):
    """Say which of K anchors a row could be: ``softmax_k(N(x V) . c_k / temperature)``.

    Its rows are probabilities, or unit rows (`unit`). ``V`` `(D, D)` whitens the rows; the anchors ``c_k`` are unit rows.
    """

    kind = "posterior"
    whitening: Tensor
    anchors: Tensor

    def __init__(self, width_in: int, width: int, temperature: float, unit: bool = False) -> None:
        super().__init__()
        self.width_in, self.width, self.temperature, self.unit = width_in, width, temperature, unit
        self.register_buffer("whitening", torch.eye(width_in, dtype=torch.float32))
        self.register_buffer("anchors", torch.zeros(width, width_in, dtype=torch.float32))

    def config(self) -> dict[str, Any]:
        """See `Map.config`."""
        return {**super().config(), "temperature": self.temperature, "unit": self.unit}

    def forward(self, rows: Tensor) -> Tensor:
        """Give the probabilities: `(B, D)` -> `(B, K)`."""
        logits = F.normalize(rows @ self.whitening, dim=1) @ self.anchors.T
        found = torch.softmax(logits / self.temperature, dim=1)
        return F.normalize(found, dim=1) if self.unit else found


class Chain(Map):
    """Maps one after the other."""

    kind = "chain"
    parts: nn.ModuleList

    def __init__(self, parts: Sequence[Map]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.width_in, self.width, self.unit = parts[0].width_in, parts[-1].width, parts[-1].unit

    def config(self) -> dict[str, Any]:
        """See `Map.config`."""
        return {"kind": self.kind, "parts": [part.config() for part in _maps(self.parts)]}

    def forward(self, rows: Tensor) -> Tensor:
        """Map: `(B, D)` -> `(B, K)`."""
        for part in self.parts:
            rows = part(rows)
        return rows


class Mixture(Map):
    """Maps side by side, each with its share: ``[sqrt(s_1) f_1(x) | sqrt(s_2) f_2(x) | ...]``, shares that sum to 1.

    The inner product of two such rows is the mean of the parts' inner products, weighted by the shares.
    """

    kind = "mixture"
    parts: nn.ModuleList

    def __init__(self, parts: Sequence[Map], shares: Sequence[float]) -> None:
        super().__init__()
        self.parts, self.shares = nn.ModuleList(parts), tuple(shares)
        self.width_in, self.width = parts[0].width_in, sum(part.width for part in parts)
        self.unit = all(part.unit for part in parts)

    def config(self) -> dict[str, Any]:
        """See `Map.config`."""
        return {"kind": self.kind, "parts": [part.config() for part in _maps(self.parts)], "shares": list(self.shares)}

    def forward(self, rows: Tensor) -> Tensor:
        """Map: `(B, D)` -> `(B, K)`."""
        return torch.cat([part(rows) * share**0.5 for part, share in zip(self.parts, self.shares, strict=True)], dim=1)


class Blocks(Map):
    """Maps at their places in a wider row, zero elsewhere: ``[ 0 | f_1(x) | 0 | f_2(x) ... ] / sqrt(n)``, `n` maps."""

    kind = "blocks"
    parts: nn.ModuleList

    def __init__(self, parts: Sequence[Map], starts: Sequence[int], width: int) -> None:
        super().__init__()
        self.parts, self.starts, self.width = nn.ModuleList(parts), tuple(starts), width
        self.width_in, self.unit = parts[0].width_in, all(part.unit for part in parts)

    def config(self) -> dict[str, Any]:
        """See `Map.config`."""
        parts = [part.config() for part in _maps(self.parts)]
        return {"kind": self.kind, "parts": parts, "starts": list(self.starts), "width": self.width}

    def forward(self, rows: Tensor) -> Tensor:
        """Map: `(B, D)` -> `(B, width)`."""
        found = rows.new_zeros(rows.shape[0], self.width)  # not len(rows), which an export takes for a constant
        for part, start in zip(_maps(self.parts), self.starts, strict=True):
            found[:, start : start + part.width] = part(rows) * len(self.parts) ** -0.5
        return found


def map_from(config: Mapping[str, Any]) -> Map:
    """Build a map of a `config`, its tensors still to be filled.

    Raises:
        KeyError, TypeError, ValueError: not such a config.
    """
    given = dict(config)
    kind = Map.kinds[given.pop("kind")]
    if "parts" in given:
        given["parts"] = [map_from(part) for part in given["parts"]]
    return kind(**given)


def _maps(parts: nn.ModuleList) -> list[Map]:
    return [part for part in parts if isinstance(part, Map)]

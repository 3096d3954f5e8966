"""Posterior: which items of the overlap an item could be, by each space's own temperature.

Items of two spaces are alike if they could be the same overlap items, ``sum_m p(m | x) p(m | y)`` with
``p(m | x) = softmax_m(x . t_m / temperature)`` (Che & Eysenbach, ICLR 2025, arXiv 2501.11326; they leave out the division by
the sum over m on the side that is searched). The compact form keeps the leading axes of what the memories show:
``z = N(f(x) V)``, f the posterior as a unit row, V the `width` leading right singular vectors of the rows f of both memories,
each memory at equal total weight.

The lower the temperatures the more axes it takes to lose nothing: at 0.02, 512 lose some points, 1024 next to none.

Cost: seconds to fit; each space keeps `items` overlap rows, some 50 MB, and a row is compared with all of them to be
projected. Prefer it where overlap items describe what items show one by one, and queries ask for nothing the overlap does
not name; `concepts` is smaller and mostly better where many overlap items say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from cmcr.connection.maps import Chain, Map, Posterior
from cmcr.connection.methods.fitting import Fitted, Parent, Run, centring_of, drawn, gap_of, linear_map, some_rows
from cmcr.connection.settings import Above0, MethodSettings, Width

_SEEN = 1024  # rows of each memory that the compact form looks at
_LEAST = 1e-6  # of the largest eigenvalue: less is rounding


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class PosteriorSettings(MethodSettings):
    """Settings of the posterior.

    Attributes:
        own_share, own_width: see `MethodSettings`.
        items: how many overlap items at most; drawn by the seed.
        width: width of the compact form, at most; fewer where the memories show less. None keeps the posterior itself,
            rows of probabilities as wide as there are `items`.
        left_temperature: of the left space: its own trained temperature (1 / logit scale) where it is known, such as 0.01
            of CLIP.
        right_temperature: of the right space.
    """

    items: Width = 10_000
    width: Width | None = 512
    left_temperature: Above0 = 0.02
    right_temperature: Above0 = 0.02

    def swapped(self) -> PosteriorSettings:
        """See `MethodSettings.swapped`."""
        return replace(self, left_temperature=self.right_temperature, right_temperature=self.left_temperature)


def fit(left: Parent, right: Parent, settings: PosteriorSettings, run: Run) -> Fitted:
    """Draw overlap items, and compact the posteriors over them."""
    chosen = drawn(len(left.overlap), settings.items, run.seed)
    whole = settings.width is None
    maps = (
        _posterior(left, chosen, settings.left_temperature, run, unit=not whole),
        _posterior(right, chosen, settings.right_temperature, run, unit=not whole),
    )
    if settings.width is None:
        return Fitted(*maps)
    shown = []
    for parent, found in zip((left, right), maps, strict=True):
        rows = some_rows(parent.outer, drawn(len(parent.outer), _SEEN, run.seed))
        shown.append(found.to(run.device)(rows.to(run.device)))
    weight = leading_axes(shown, settings.width).cpu()
    first, second = (Chain([found.cpu(), linear_map(weight)]) for found in maps)
    return Fitted(first, second)


def into(base: Parent, leaf: Parent, settings: PosteriorSettings, run: Run) -> Map:
    """Carry a space into the coordinates of another, which stay as they are: ``N(sum_m p(m | x) t_m)``, t_m the base's rows.

    Only the leaf's temperature counts, which is `right_temperature` here; `width` has no effect.
    """
    chosen = drawn(len(base.overlap), settings.items, run.seed)
    found = _posterior(leaf, chosen, settings.right_temperature, run, unit=False)
    return Chain([found, linear_map(some_rows(base.overlap, chosen))])


def leading_axes(shown: Sequence[Tensor], width: int) -> Tensor:
    """Find the leading axes of several sets of rows, each set at equal total weight.

    With the rows M, each divided by the root of its set's size, and ``M M^T = V w V^T``: the columns ``M^T V_k w_k^(-1/2)``.

    Args:
        shown: sets of rows `(n, N)`.
        width: how many axes, at most; there are no more than rows, nor than what stands out from rounding.

    Returns:
        `(N, K)`, orthonormal columns.
    """
    rows = torch.cat([each / len(each) ** 0.5 for each in shown])
    values, vectors = torch.linalg.eigh((rows @ rows.T).cpu().double())  # Apple's GPUs have no float64
    kept = min(width, int((values > _LEAST * values[-1]).sum()))
    values, vectors = values[-kept:].flip(0), vectors[:, -kept:].flip(1)
    return rows.T @ (vectors / values.sqrt()).to(rows)


def _posterior(parent: Parent, chosen: Tensor, temperature: float, run: Run, *, unit: bool) -> Map:
    found = Posterior(parent.width, len(chosen), temperature, unit=unit)
    found.anchors.copy_(some_rows(parent.overlap, chosen))
    return Chain([centring_of(parent, gap_of(parent, run.seed)), found])

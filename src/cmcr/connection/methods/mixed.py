"""Mixed: trained projectors and concepts side by side, each at a share.

The similarity is that of `distilled` plus `concepts_weight` times that of `concepts`, both divided by their standard deviation
between the two memories: a direct sum of both blocks expresses it exactly (`Mixture`).

Cost: that of both. Prefer it where a loss on things the overlap does not name is worth a gain on those it does: the weight
trades one for the other, and no unpaired criterion tells which you want.
"""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from cmcr.connection.maps import Mixture
from cmcr.connection.methods import concepts, distilled
from cmcr.connection.methods.fitting import Fitted, Parent, Run, drawn, some_rows
from cmcr.connection.settings import AtLeast0, MethodSettings

_ITEMS = 2000  # of each memory, between which the deviations are taken


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class MixedSettings(MethodSettings):
    """Settings of the mixture.

    Attributes:
        own_share, own_width: see `MethodSettings`.
        concepts_weight: of the similarity by concepts, beside 1 for that of the trained projectors.
    """

    concepts_weight: AtLeast0 = 0.1


def fit(left: Parent, right: Parent, settings: MixedSettings, run: Run) -> Fitted:
    """Fit both and lay them side by side."""
    share, width = settings.own_share, settings.own_width
    trained = distilled.fit(left, right, distilled.DistilledSettings(own_share=share, own_width=width), run)
    named = concepts.fit(left, right, concepts.ConceptSettings(own_share=share, own_width=width), run)
    items = [some_rows(parent.outer, drawn(len(parent.outer), _ITEMS, run.seed)) for parent in (left, right)]
    weights = [
        weight / float(_similarities(found, items).std())
        for weight, found in ((1.0, trained), (settings.concepts_weight, named))
    ]
    shares = [weight / sum(weights) for weight in weights]
    first = Mixture([trained.left, named.left], shares)
    return Fitted(first, Mixture([trained.right, named.right], shares), trained.history)


def _similarities(found: Fitted, items: list[Tensor]) -> Tensor:
    return found.left.cpu()(items[0]).detach() @ found.right.cpu()(items[1]).detach().T

"""C-MCR, the paper: enhance the overlap, then train two projectors (Wang et al., NeurIPS 2023, arXiv 2305.14381).

Cost: the training, minutes. Prefer it where items of one concept differ in ways that an overlap of few thousand items cannot
name one by one, and where queries go beyond what the overlap covers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cmcr.arrays import all_rows
from cmcr.connection.enhancement import semantic_consistency
from cmcr.connection.maps import Chain, Map
from cmcr.connection.methods.fitting import Fitted, Parent, Run, centring_of
from cmcr.connection.settings import Settings
from cmcr.connection.training import EnhancedSpace, MoreLoss, train
from cmcr.engine.batches import Rows


def fit(left: Parent, right: Parent, settings: Settings, run: Run) -> Fitted:
    """Find two projectors: the paper's figure 2, from left to right."""
    return trained(*enhanced(left, right, settings, run), settings, run)


def enhanced(left: Parent, right: Parent, settings: Settings, run: Run) -> tuple[EnhancedSpace, EnhancedSpace]:
    """Give both spaces the semantically consistent rows of their overlap, and their centring where it is asked for."""
    found = []
    for number, parent in enumerate((left, right)):
        consistent = run.consistent[number]
        if consistent is None:
            consistent = enhance(
                parent.overlap, parent.outer, settings, run.device, run.part("semantic consistency", number, 2)
            )
        centring = centring_of(parent) if settings.centring else None
        found.append(EnhancedSpace(parent.overlap, consistent, centring))
    return found[0], found[1]


def trained(
    left: EnhancedSpace, right: EnhancedSpace, settings: Settings, run: Run, beside: MoreLoss | None = None
) -> Fitted:
    """Train the projectors of two enhanced spaces, and centre what they are given as in training."""
    found = train(
        left,
        right,
        settings,
        seed=run.seed,
        device=run.device,
        progress=run.part("training"),
        resume_from=run.resume_from,
        after_step=run.after_step,
        beside=beside,
    )
    return Fitted(_after(left, found.left), _after(right, found.right), found.history)


def enhance(
    overlap: Rows,
    outer: Rows,
    settings: Settings,
    device: torch.device,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Compute the semantically consistent rows `(n, D)` of a whole overlap by the settings of a connection."""
    rows = overlap if isinstance(overlap, Tensor) else all_rows(overlap)
    if not settings.semantic_consistency:
        return rows
    return semantic_consistency(
        rows,
        outer,
        settings.consistency_temperature,
        normalize=settings.normalize_consistency,
        precision=settings.precision,
        device=device,
        progress=progress,
    )


def _after(space: EnhancedSpace, projector: Map) -> Map:
    return projector if space.centring is None else Chain([space.centring, projector])

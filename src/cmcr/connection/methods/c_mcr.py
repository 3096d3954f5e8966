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
from cmcr.connection.training import EnhancedSpace, train
from cmcr.engine.batches import Rows


def fit(left: Parent, right: Parent, settings: Settings, run: Run) -> Fitted:
    """Find two projectors: the paper's figure 2, from left to right."""
    enhanced = []
    for number, parent in enumerate((left, right)):
        consistent = run.consistent[number]
        if consistent is None:
            consistent = enhance(
                parent.overlap, parent.outer, settings, run.device, run.part("semantic consistency", number, 2)
            )
        centring = centring_of(parent) if settings.centring else None
        enhanced.append(EnhancedSpace(parent.overlap, consistent, centring))
    trained = train(
        enhanced[0],
        enhanced[1],
        settings,
        seed=run.seed,
        device=run.device,
        progress=run.part("training"),
        resume_from=run.resume_from,
        after_step=run.after_step,
    )
    return Fitted(_after(enhanced[0], trained.left), _after(enhanced[1], trained.right), trained.history)


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

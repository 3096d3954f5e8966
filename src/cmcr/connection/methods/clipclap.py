"""The two recipes of clipclap (antfly, MIT licence), baselines: one matrix from the right space into the left one.

`clipclap-text` brings the overlap's rows of the two spaces together by their cosine. `clipclap` contrasts pairs of an item of
the leaf's outer modality and the overlap item that describes it. Its authors have such pairs, 5,000 sounds with captions;
here there are none, so the semantically consistent row of overlap item i stands for the item that it describes.

Cost: seconds to a minute. They are here to stand beside: neither centres, and the centred closed forms of `linear` are
cheaper and mostly better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from cmcr.arrays import all_rows
from cmcr.connection.enhancement import semantic_consistency
from cmcr.connection.losses import info_nce
from cmcr.connection.maps import Identity, Map
from cmcr.connection.methods.fitting import Fitted, Parent, Run, linear_map
from cmcr.connection.settings import Above0, MethodSettings, Width
from cmcr.engine.batches import Batches, Rows
from cmcr.engine.precision import fast_float32, guarded_torch_state, seeded_weights
from cmcr.engine.train_state import TrainState


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class TextSettings(MethodSettings):
    """Settings of `clipclap-text`.

    Attributes:
        own_share, own_width: see `MethodSettings`.
        epochs: passes over the overlap.
        batch_size: overlap items per step, at most.
        learning_rate: of AdamW, decayed to zero along a cosine.
    """

    epochs: Width = 20
    batch_size: Annotated[int, Field(ge=2)] = 512
    learning_rate: Above0 = 1e-3


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class PairSettings(TextSettings):
    """Settings of `clipclap`.

    Attributes:
        own_share, own_width, epochs, batch_size, learning_rate: see `TextSettings`.
        temperature: of InfoNCE.
        consistency_temperature: of the semantic consistency that stands in for pairs.
    """

    temperature: Above0 = 0.07
    consistency_temperature: Above0 = 0.01


def fit_text(left: Parent, right: Parent, settings: TextSettings, run: Run) -> Fitted:
    """Carry the right space into the left one by ``min_W mean_i 1 - cos(r_i W, l_i)``."""
    return _fitted(left, right.overlap, lambda rows, goals: (1 - (rows * goals).sum(dim=1)).mean(), settings, run)


def fit_pairs(left: Parent, right: Parent, settings: PairSettings, run: Run) -> Fitted:
    """Carry the right space into the left one by InfoNCE of the leaf's consistent rows with the base's overlap rows."""
    shown = run.consistent[1]
    if shown is None:
        overlap = right.overlap if isinstance(right.overlap, Tensor) else all_rows(right.overlap)
        report = run.part("semantic consistency")
        temperature = settings.consistency_temperature
        shown = semantic_consistency(overlap, right.outer, temperature, device=run.device, progress=report)
    return _fitted(left, shown, lambda rows, goals: info_nce(rows, goals, settings.temperature), settings, run)


def text_into(base: Parent, leaf: Parent, settings: TextSettings, run: Run) -> Map:
    """Carry a space into the coordinates of another, which stay as they are: `fit_text`, for a base."""
    return fit_text(base, leaf, settings, run).right


def pairs_into(base: Parent, leaf: Parent, settings: PairSettings, run: Run) -> Map:
    """Carry a space into the coordinates of another, which stay as they are: `fit_pairs`, for a base."""
    return fit_pairs(base, leaf, settings, run).right


def _fitted(
    base: Parent, leaf: Rows, loss: Callable[[Tensor, Tensor], Tensor], settings: TextSettings, run: Run
) -> Fitted:
    """Train the matrix on rows of the leaf and, row by row, of the base's overlap."""
    with guarded_torch_state(run.device), fast_float32():
        batches = Batches((leaf, base.overlap), min(settings.batch_size, len(leaf)), run.seed, run.device)
        with seeded_weights(run.seed):
            matrix = nn.Linear(leaf.shape[1], base.width, bias=False, dtype=torch.float32)
        steps = settings.epochs * batches.per_epoch
        matrix = matrix.to(run.device)
        state = TrainState({"matrix": matrix}, steps, 1, learning_rate=settings.learning_rate, weight_decay=0.01)
        if run.resume_from is not None:
            state.restore(run.resume_from)
        while state.step < state.total:
            rows, goals = batches.rows(state.step)
            state.descend([loss(F.normalize(matrix(rows), dim=1), goals)])
            if run.after_step is not None:
                run.after_step(state)
        state.check_loss()
    weight = matrix.weight.detach().T.cpu()
    return Fitted(Identity(base.width), linear_map(weight), {"total": state.history[:, 0].tolist()})

"""The training loop: two projectors, learned from the enhanced embeddings of the overlap."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cmcr.connection.enhancement import semantic_completion
from cmcr.connection.losses import LossTerms, connection_loss
from cmcr.connection.maps import Identity, Map
from cmcr.connection.projectors import Projector, ResidualProjector
from cmcr.connection.settings import ProjectorShape, Settings
from cmcr.engine.batches import Batches, Rows
from cmcr.engine.device import memory_errors
from cmcr.engine.precision import fast_float32, guarded_torch_state, seeded_weights
from cmcr.engine.train_state import TrainState
from cmcr.errors import DimensionError, TooFewRowsError

_STEPS_BETWEEN_LOOKS = 20  # at the loss: each look waits for the GPU

MoreLoss = Callable[[tuple[Map, Map], int, torch.Generator], Tensor]
"""Called with both projectors, the step and the source of its noise, of which nothing else may be drawn; gives a scalar."""


@dataclass(frozen=True)
class EnhancedSpace:
    """What one space contributes to the training.

    Attributes:
        overlap: `(n, D)` unit rows of the overlap items, a tensor or rows on disk.
        consistent: `(n, D)` their semantically consistent rows in the space's other modality.
        centring: what the rows of every batch pass first, if anything.
        stays: whether the space is left as it is: nothing is learned for it.
        start: `(D, K)` the linear map that its projector starts from and corrects; None draws a perceptron.
    """

    overlap: Rows
    consistent: Rows
    centring: Map | None = None
    stays: bool = False
    start: Tensor | None = None


@dataclass(frozen=True)
class Trained:
    """The result of training.

    Attributes:
        left: projector of the left space, in evaluation mode, on the CPU; the identity where the space stays.
        right: the same of the right space.
        history: the loss terms of every step, by the names of `LossTerms`.
    """

    left: Map
    right: Map
    history: dict[str, list[float]]


def train(
    left: EnhancedSpace,
    right: EnhancedSpace,
    settings: Settings,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
    resume_from: Mapping[str, Tensor] | None = None,
    after_step: Callable[[TrainState], None] | None = None,
    beside: MoreLoss | None = None,
) -> Trained:
    """Learn one projector per space so that the enhanced embeddings of an overlap item meet in the common space.

    Each step takes a batch of overlap items, completes all four sets of rows with fresh noise (`semantic_completion`),
    projects them and descends on `connection_loss`. Every epoch visits the items in a new order; a last batch that is not
    full is left out.

    The seed alone decides the initial weights, and with the number of the step the order and the noise: on one machine
    and device type CPU the same inputs give the same weights bit for bit, whatever torch's modes are. The caller's random
    state is left as it was.

    Args:
        left: embeddings of the left space. What the device has no room for stays in RAM or on disk, and the rows of each
            batch are copied to it.
        right: embeddings of the right space; row i is the same overlap item.
        settings: everything else.
        seed: a whole number, 0 or more.
        device: where to train.
        progress: called with the share of steps done, in (0, 1].
        resume_from: `TrainState.tensors` of a training with the same arguments; it continues after that step.
        after_step: called after every step, to keep the state or to stop by an exception.
        beside: what the loss has beside the paper's terms, if anything; it counts in `LossTerms.total`.

    Returns:
        The projectors and the history of the loss.

    Raises:
        DimensionError: row counts or widths that do not match.
        TooFewRowsError: fewer than two overlap items.
        ConfigError: settings for which the memory does not suffice.
        TrainingError: the loss became NaN or infinite.
    """
    where = torch.empty(0, device=device).device  # with the number of the GPU
    sets = (left.overlap, left.consistent, right.overlap, right.consistent)
    count = _checked_count(sets)
    centrings = [each and copy.deepcopy(each).to(where) for each in 2 * [left.centring] + 2 * [right.centring]]
    with guarded_torch_state(where), fast_float32(), memory_errors():
        batches = Batches(sets, settings.rows_per_step(count), seed, where)
        projectors = _initial(left, right, settings, seed, where)
        state = TrainState(
            dict(zip(("left", "right"), projectors, strict=True)),
            settings.epochs * batches.per_epoch,
            len(LossTerms._fields),
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        if resume_from is not None:
            state.restore(resume_from)
        while state.step < state.total:
            noise = batches.noise(state.step)
            t_left, v_left, t_right, a_right = (
                semantic_completion(
                    rows if centring is None else centring(rows),
                    settings.noise_variance,
                    generator=noise,
                    rescale=settings.rescale_noise,
                )
                for rows, centring in zip(batches.rows(state.step), centrings, strict=True)
            )
            projected_left = project_both(projectors[0], t_left, v_left, settings.batch_norm)
            projected_right = project_both(projectors[1], t_right, a_right, settings.batch_norm)
            terms = connection_loss(projected_left, projected_right, settings)
            if beside is not None:
                terms = terms._replace(total=terms.total + beside(projectors, state.step, noise))
            state.descend(terms)
            if state.step % _STEPS_BETWEEN_LOOKS == 0 or state.step == state.total:
                state.check_loss()
                if progress is not None:
                    progress(state.step / state.total)
            if after_step is not None:
                after_step(state)
    return Trained(
        left=projectors[0].cpu().eval(),
        right=projectors[1].cpu().eval(),
        history=dict(zip(LossTerms._fields, state.history.T.cpu().tolist(), strict=True)),
    )


def project_both(projector: Map, overlap: Tensor, consistent: Tensor, batch_norm: str) -> tuple[Tensor, Tensor]:
    """Project the two modalities of one training batch.

    Args:
        projector: of the space.
        overlap: `(B, D)` rows of the overlap.
        consistent: `(B, D)` their semantically consistent rows.
        batch_norm: `"together"` normalises both by common statistics, as inference does; `"apart"` makes two calls, each
            with the statistics of its own modality. The paper does not say which it means.

    Returns:
        Two tensors `(B, K)` of unit rows.
    """
    if batch_norm == "apart":
        return projector(overlap), projector(consistent)
    # Not two slices: the gradient of each would be as large as both, and nearly all zeros.
    first, second = projector(torch.cat([overlap, consistent])).split(len(overlap))
    return first, second


def _checked_count(sets: tuple[Rows, ...]) -> int:
    counts = {len(rows) for rows in sets}
    if len(counts) > 1:
        raise DimensionError(f"all four sets of embeddings must have one row per overlap item, got {sorted(counts)}.")
    widths = [rows.shape[1] for rows in sets]
    if widths[0] != widths[1] or widths[2] != widths[3]:
        raise DimensionError(f"consistent rows must be as wide as the overlap of their space, got widths {widths}.")
    count = counts.pop()
    if count < 2:
        raise TooFewRowsError(f"expected at least 2 overlap items to contrast, thousands to learn from, got {count}.")
    return count


def _initial(
    left: EnhancedSpace, right: EnhancedSpace, settings: Settings, seed: int, device: torch.device
) -> tuple[Map, Map]:
    """Two projectors in training mode, drawn from the seed without touching the caller's random state."""
    spaces = left, right
    shape = settings.projector_shape(*(space.overlap.shape[1] for space in spaces))
    with seeded_weights(int(np.random.SeedSequence(seed).generate_state(3)[0])):
        first, second = (_new(space, shape) for space in spaces)
    return first.to(device).train(), second.to(device).train()


def _new(space: EnhancedSpace, shape: ProjectorShape) -> Map:
    width = space.overlap.shape[1]
    if space.stays:
        return Identity(width)
    if space.start is None:
        return Projector(width, shape)
    found = ResidualProjector(width, space.start.shape[1], shape.hidden[0])
    with torch.no_grad():
        found.straight.weight.copy_(space.start.T)
    return found

"""The training loop: two projectors, learned from the enhanced embeddings of the overlap."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cmcr.connection.batches import Batches
from cmcr.connection.checkpoint import Checkpoint
from cmcr.connection.interruption import Interruption, held_back
from cmcr.connection.learner import Learner
from cmcr.connection.losses import LossTerms, connection_loss
from cmcr.connection.modes import plain_modes
from cmcr.connection.peers import Peers, peers_here
from cmcr.connection.products import fast_float32
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import Settings
from cmcr.connection.sides import Side, placed
from cmcr.engine.device import gpu_bytes, ram_bytes
from cmcr.errors import ConfigError, ResumeError, TrainingError

__all__ = ["Side", "Trained", "train"]

_STRETCH = 20  # steps between looks at the loss, each of which waits for the GPU


@dataclass(frozen=True)
class Trained:
    """What training gives.

    Attributes:
        left: projector of the left space, in evaluation mode, on the CPU.
        right: the same of the right space.
        history: the loss terms of every step, by the names of `LossTerms`.
    """

    left: Projector
    right: Projector
    history: dict[str, list[float]]


def train(
    left: Side,
    right: Side,
    settings: Settings,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
    peers: Peers | None = None,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Learn the two projectors with AdamW under a cosine decay.

    Every step takes a batch of overlap items, completes all four embeddings of each with fresh noise, projects them and
    descends on `connection_loss`. Every pass visits the items in a new order; a last batch that is not full is left out.

    The seed alone decides the initial weights, and with the number of the step the order and the noise: on one machine
    and device type CPU the same inputs give the same weights bit for bit, whatever torch's modes are (no_grad, inference
    mode, autocast, default dtype). The caller's random state is left as it was.

    Several processes share each batch: every one takes its rows, normalises by the statistics of the whole batch,
    contrasts with all of its rows, and all make the step of one process, to rounding.

    Args:
        left: embeddings of the left space. Where the device has no room for all embeddings they stay where they are, in
            RAM or in files, and the rows of each batch are brought to it.
        right: embeddings of the right space; row i is the same overlap item.
        settings: everything else.
        seed: a whole number, 0 or more.
        device: where to train.
        progress: called with the share of steps done, in (0, 1].
        peers: the processes that train together, each of which holds all rows; None takes those of torch.distributed.
        checkpoint: taken up if it holds a state; written now and then, and when the process is asked to stop, which it
            then does after a whole step.

    Returns:
        The projectors and the history of the loss, equal in all processes.

    Raises:
        DimensionError: row counts that do not match.
        TooFewRowsError: fewer than two overlap items.
        ConfigError: more processes than rows in a batch, or settings for which the memory does not suffice.
        TrainingError: the loss became NaN or infinite.
    """
    where = torch.empty(0, device=device).device  # with the number of the GPU
    peers = peers or peers_here()
    sides = placed(left, right, where)
    rows = settings.rows_per_step(len(sides[0].overlap))
    if rows < peers.size:
        raise ConfigError(f"batches of {rows} rows cannot be shared by {peers.size} processes. Start fewer.")
    check_size(settings, (left.overlap.shape[1], right.overlap.shape[1]), len(sides[0].overlap), where)
    with plain_modes(where), fast_float32(), _room_said(), Batches(sides, settings, seed, where, peers) as batches:
        total = settings.epochs * batches.per_epoch
        learner = Learner(_initial(sides, settings, seed, where), settings, total, peers)
        _take_up(learner, checkpoint, peers)
        held = held_back(however_often=peers.size > 1) if checkpoint else nullcontext(Interruption())
        with held as interruption:
            while learner.step < total:
                completed = batches.completed(learner.step)
                learner.descend(_loss(learner.projectors, completed, settings, peers))
                if learner.step % _STRETCH == 0 or learner.step == total:
                    _check_loss(learner, checkpoint)
                    if progress is not None:
                        progress(learner.step / total)
                if checkpoint and _kept(learner, checkpoint, interruption, peers):
                    break
        if learner.step < total:
            raise KeyboardInterrupt  # another process was asked to stop, or the signal's own handler has come back
        by_term = learner.history.T.cpu().tolist()
        return Trained(
            left=learner.projectors[0].cpu().eval(),
            right=learner.projectors[1].cpu().eval(),
            history=dict(zip(LossTerms._fields, by_term, strict=True)),
        )


def check_size(settings: Settings, widths: tuple[int, int], items: int, device: torch.device) -> None:
    """Make sure that what is learned fits into the memory of a machine that does nothing else.

    Args:
        settings: of the training.
        widths: of the two spaces.
        items: of the overlap.
        device: where to train.

    Raises:
        ConfigError: the settings are too large.
    """
    room = gpu_bytes(device) or ram_bytes()
    steps = int(settings.epochs) * (items // settings.rows_per_step(items))
    losses = 4 * len(LossTerms._fields) * steps
    if losses > room:
        raise ConfigError(
            f"settings: epochs: {settings.epochs} are {steps} steps, whose losses alone take {losses / 1e9:,.0f} GB of memory, "
            f"and there are {room / 1e9:,.0f}. Lower epochs."
        )
    shape = settings.projector_shape(*widths)
    layers = [pair for width in widths for pair in itertools.pairwise((width, *shape.hidden, shape.width))]
    weights = 16 * sum(int(a) * int(b) for a, b in layers)  # each number with its gradient and two moments
    if weights > room:
        raise ConfigError(
            f"settings: width, hidden: projectors of {(*shape.hidden, shape.width)} take {weights / 1e9:,.0f} GB of memory to "
            f"train, and there are {room / 1e9:,.0f}. Lower width or hidden."
        )


@contextmanager
def _room_said() -> Iterator[None]:
    """Say by which settings less memory is needed where there is too little."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise ConfigError(
                f"the training needs more memory than there is. Lower batch_size, width or hidden. ({error})"
            ) from error
        raise


def _initial(
    sides: tuple[Side, Side], settings: Settings, seed: int, device: torch.device
) -> tuple[Projector, Projector]:
    """Two projectors in training mode, drawn from the seed without touching the caller's random state."""
    widths = sides[0].overlap.shape[1], sides[1].overlap.shape[1]
    shape = settings.projector_shape(*widths)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would reseed the GPUs too, for which nothing is restored here.
        torch.default_generator.manual_seed(int(np.random.SeedSequence(seed).generate_state(3)[0]))
        projectors = Projector(widths[0], shape), Projector(widths[1], shape)
    return projectors[0].to(device).train(), projectors[1].to(device).train()


def _loss(
    projectors: tuple[Projector, Projector], completed: tuple[Tensor, Tensor], settings: Settings, peers: Peers
) -> LossTerms:
    """Project and compare one batch."""
    left, right = (
        projector.project_both(both, settings.batch_norm, peers)
        for projector, both in zip(projectors, completed, strict=True)
    )
    return connection_loss(
        left,
        right,
        ttc_temperature=settings.ttc_temperature,
        avc_temperature=settings.avc_temperature,
        ttc_weight=settings.ttc_weight,
        avc_weight=settings.avc_weight,
        intra_weight=settings.intra_weight,
        intra_distance=settings.intra_distance,
        precision=settings.precision,
        peers=peers,
    )


def _take_up(learner: Learner, checkpoint: Checkpoint | None, peers: Peers) -> None:
    """Go on from a checkpoint, all processes from the same one."""
    state = checkpoint.read() if checkpoint else None
    if state is not None:
        learner.restore(state)
    steps = peers.max_(torch.tensor([learner.step, -learner.step], device=learner.history.device)).tolist()
    if steps[0] != -steps[1]:
        raise ResumeError(
            f"the processes read different checkpoints (after {-steps[1]} and {steps[0]} steps): its folder must be one that "
            "all of them share."
        )


def _kept(learner: Learner, checkpoint: Checkpoint, interruption: Interruption, peers: Peers) -> bool:
    """Write the state if it is time; tell whether all processes shall stop now."""
    stop = interruption.asked is not None
    if peers.size > 1:
        # They must stop after the same step. Agreeing waits for a GPU, so it is not done at every step there.
        where = learner.history.device
        wait = where.type != "cpu" and learner.step % _STRETCH
        stop = not wait and bool(peers.max_(torch.tensor([int(stop)], device=where)).item())
    if stop or (checkpoint.due and learner.step < learner.total):
        _check_loss(learner, checkpoint)
        checkpoint.write(learner.step, learner.state())
    if stop:
        # A launcher that sees one process end stops the others: none may end before the first one has written.
        peers.max_(torch.zeros(1, device=learner.history.device))
    return stop


def _check_loss(learner: Learner, checkpoint: Checkpoint | None) -> None:
    if torch.isfinite(learner.history[learner.step - 1]).all():
        return
    if checkpoint:
        checkpoint.forget()
    raise TrainingError(
        f"the loss is no longer a finite number by step {learner.step} of {learner.total}. Lower learning_rate or "
        "weight_decay, or raise the temperatures."
    )

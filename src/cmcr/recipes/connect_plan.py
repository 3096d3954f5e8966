"""What connecting two spaces takes: the semantic consistency of either, then the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmcr.connection.connect import outer_of, overlap_of
from cmcr.connection.settings import Settings
from cmcr.connection.stored import spaces_of
from cmcr.memories.memory import Memory
from cmcr.recipes import costs
from cmcr.recipes.gemm import CONSISTENCY_SHARE, TRAINING_SHARE, precision_of
from cmcr.recipes.plan import Machine, Plan, StagePlan, plan_of
from cmcr.recipes.readable import readable_bytes

TRAINING = "connect: training"


@dataclass(frozen=True)
class PlannedSpace:
    """A space that is to be connected.

    Attributes:
        name: of the space.
        width: width D; None where it is not known.
        overlap_rows: rows of the overlap, None where that is not known.
        outer_rows: rows of its other modality, None where that is not known.
        dtype: in which rows are kept.
    """

    name: str
    width: int | None
    overlap_rows: int | None
    outer_rows: int | None
    dtype: str


def plan_of_memories(
    memories: Sequence[Memory],
    settings: Settings,
    *,
    overlap: str | None = None,
    device: str = "auto",
    out: Path | None = None,
) -> Plan:
    """Plan the connection of memories on disk. Reads their manifests, no rows, and measures products for a second or two.

    The overlap is taken to be as long as the shorter of its two memories; which ids are in both is not looked at.

    Args:
        memories: four, in any order, those of one kind as one.
        settings: of the connection.
        overlap: the shared modality; may be left out if there is only one.
        device: where it will compute: "auto", "cpu", "cuda", ...
        out: folder that the connection will be written to; None the present one.

    Raises:
        ConfigError: memories that are not of two spaces, or share no or several modalities.
        DeviceError: a device that this machine does not have.
    """
    left, right = spaces_of(memories)
    shared = overlap_of(left, right, overlap)
    planned = []
    for space in (left, right):
        first, outer = space.rows[shared], space.rows[outer_of(space, shared)]
        dtype = next(memory.dtype for memory in memories if memory.space == space.space and memory.modality != shared)
        planned.append(PlannedSpace(space.space, first.shape[1], len(first), len(outer), dtype))
    machine = Machine(device, precision_of(settings))
    stages = connect_stages(planned[0], planned[1], settings, machine, out or Path())
    time_steps(stages, machine)
    return plan_of(f"{left.space} and {right.space} through {shared}", machine, stages)


def connect_stages(
    left: PlannedSpace, right: PlannedSpace, settings: Settings, machine: Machine, out: Path
) -> list[StagePlan]:
    """Plan the steps of connecting two spaces, all but the time they take.

    Args:
        left: one space.
        right: the other.
        settings: of the connection.
        machine: that will compute.
        out: folder of the connection.
    """
    counts = left.overlap_rows, right.overlap_rows
    rows = None if counts[0] is None or counts[1] is None else min(counts[0], counts[1])
    training = _training(rows, left, right, settings, machine, out)
    if not settings.semantic_consistency:
        return [training]
    return [*(_consistency(rows, space, training, machine) for space in (left, right)), training]


def time_steps(stages: Sequence[StagePlan], machine: Machine) -> None:
    """Say how long steps of connecting take: their operations, at the share of the rate of plain products they reach."""
    for stage in stages:
        if stage.operations is not None:
            share = TRAINING_SHARE if stage.stage == TRAINING else CONSISTENCY_SHARE
            stage.seconds = stage.operations / (share * machine.gemm)


def _consistency(rows: int | None, space: PlannedSpace, training: StagePlan, machine: Machine) -> StagePlan:
    """Plan the semantic consistency of a space, which holds what the training will need, in the same places."""
    stage = StagePlan(f"connect: semantic consistency of {space.name}", items=rows, ram=training.ram, gpu=training.gpu)
    if rows is None or space.outer_rows is None or space.width is None:
        return stage
    stage.operations = costs.consistency_operations(rows, space.outer_rows, space.width)
    outer = costs.rows_bytes(space.outer_rows, space.width, space.dtype)
    kept = training.ram is not None and training.ram + outer <= machine.ram  # by the system, after the first pass
    passes = 1 if kept else costs.passes(rows, space.width, machine.device, machine.precision)
    stage.reads = costs.rows_bytes(rows, space.width, space.dtype) + passes * outer
    stage.writes = 0
    return stage


def _training(
    rows: int | None, left: PlannedSpace, right: PlannedSpace, settings: Settings, machine: Machine, out: Path
) -> StagePlan:
    stage = StagePlan(TRAINING, items=rows, where=out)
    if left.width is None or right.width is None:
        return stage
    stage.reads, stage.writes = 0, costs.connection_bytes(left.width, right.width, settings)
    if rows is None:
        return stage
    batch = settings.rows_per_step(rows)
    if settings.batch_size is not None and settings.batch_size > rows:
        stage.notes.append(f"batch_size {settings.batch_size:,} is more than there is: a step takes all {rows:,} items")
    stage.operations = costs.training_operations(rows, left.width, right.width, settings)
    embeddings = costs.embeddings_bytes(rows, left.width, right.width)
    step = costs.BASE_BYTES + costs.batch_bytes(batch, left.width, right.width, settings)
    _place(stage, embeddings, step, settings.epochs, machine)
    stage.problems = [f"a step of {batch:,} items: {problem}" for problem in stage.problems]
    return stage


def _place(stage: StagePlan, embeddings: int, step: int, epochs: int, machine: Machine) -> None:
    """Find where the embeddings fit: beside the batches on the GPU, in RAM, or in files; refuse what fits nowhere."""
    if machine.gpu is not None:
        stage.gpu = step + embeddings
        if stage.gpu > machine.gpu:
            stage.gpu = step
            stage.notes.append(f"embeddings ({readable_bytes(embeddings)}) do not fit on the GPU, and stay in RAM")
        if step > machine.gpu:
            stage.problems.append(_too_large(step, "on the GPU", machine.gpu) + ", or compute with --device cpu.")
    held = costs.BASE_BYTES if machine.gpu is not None else step
    stage.ram = held + embeddings
    if stage.ram > machine.ram:
        stage.ram = held
        stage.reads, stage.writes = (stage.reads or 0) + epochs * embeddings, (stage.writes or 0) + embeddings
        stage.notes.append(
            f"embeddings ({readable_bytes(embeddings)}) do not fit in RAM ({readable_bytes(machine.ram)}): they are kept in "
            "files while it is trained, which is slower on slow disks"
        )
    if held > machine.ram:
        stage.problems.append(_too_large(held, "in RAM", machine.ram) + ".")


def _too_large(needed: int, where: str, there: int) -> str:
    return (
        f"{readable_bytes(needed)} are needed {where} even without the embeddings, and there are {readable_bytes(there)}. "
        "Choose a smaller batch_size in the settings"
    )

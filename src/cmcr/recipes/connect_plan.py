"""What connecting two spaces takes: the semantic consistency of either, then the training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cmcr.connection.checkpoint import unfinished
from cmcr.connection.connect import outer_of, overlap_of
from cmcr.connection.group import launch
from cmcr.connection.products import Precision
from cmcr.connection.settings import Settings
from cmcr.connection.stored import StoredMemory, shared_places, spaces_of
from cmcr.errors import CmcrError, words_of
from cmcr.memories.memory import Memory
from cmcr.recipes import costs
from cmcr.recipes.begun_work import BegunWork, begun_work
from cmcr.recipes.gemm import CONSISTENCY_SHARE, TRAINING_SHARE
from cmcr.recipes.plan import Machine, Plan, StagePlan, plan_of
from cmcr.recipes.readable import readable_bytes
from cmcr.recipes.room import Needs, place
from cmcr.recipes.target import in_the_way

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
    anew: bool = False,
) -> Plan:
    """Plan the connection of memories on disk. Reads manifests and the ids of the overlap, and measures products for a moment.

    What connecting refuses before it computes anything stands among the problems: an overlap of fewer than two items, ids
    that occur twice, memories of one space that differ in width, a place that cannot be written to, something else at
    `out` or where unfinished work is kept, damaged work, another run that is at work there.

    Where a launcher such as torchrun has started several processes, the plan is that of all of them together.

    Args:
        memories: four, in any order, those of one kind as one.
        settings: of the connection.
        overlap: the shared modality; may be left out if there is only one.
        device: where it will compute: "auto", "cpu", "cuda", ...
        out: folder that the connection will be written to; None for somewhere below the present folder.
        anew: the state of a training that was stopped will be dropped.

    Raises:
        ConfigError: memories that are not of two spaces, or share no or several modalities; a device on which several
            processes cannot compute.
        DeviceError: a device that this machine does not have.
    """
    left, right = spaces_of(memories)
    shared = overlap_of(left, right, overlap)
    overlaps = left.rows[shared], right.rows[shared]
    rows, problems, notes = _matched(overlaps, (left.space, right.space))
    planned = []
    for space in (left, right):
        outer = space.rows[outer_of(space, shared)]
        dtype = next(memory.dtype for memory in memories if memory.space == space.space and memory.modality != shared)
        planned.append(PlannedSpace(space.space, outer.shape[1], rows, len(outer), dtype))
    started = launch()
    machine = Machine(started.device(device), settings.precision, started)
    stages = connect_stages(planned[0], planned[1], settings, machine, out, anew=anew)
    stages[-1].problems += problems
    stages[-1].notes += notes
    time_steps(stages, machine)
    return plan_of(f"{left.space} and {right.space} through {shared}", machine, stages)


def connect_stages(
    left: PlannedSpace,
    right: PlannedSpace,
    settings: Settings,
    machine: Machine,
    out: Path | None,
    *,
    anew: bool = False,
) -> list[StagePlan]:
    """Plan the steps of connecting two spaces, all but the time they take.

    Args:
        left: one space.
        right: the other.
        settings: of the connection.
        machine: that will compute.
        out: folder of the connection; None for somewhere below the present one.
        anew: the state of a training that was stopped will be dropped.
    """
    counts = left.overlap_rows, right.overlap_rows
    rows = None if counts[0] is None or counts[1] is None else min(counts[0], counts[1])
    problems = [] if out is None else in_the_way(out)
    begun = begun_work(out, anew=anew) if out is not None and not problems else BegunWork()
    stages = [_training(rows, left, right, settings, machine, out or Path())]
    if settings.semantic_consistency:
        sides = [_consistency(rows, space, stages[0], machine) for space in (left, right)]
        for stage, side in zip(sides, ("left", "right"), strict=True):
            if stage.writes is not None:  # what is kept already needs no more room
                stage.writes = max(0, stage.writes - begun.kept.get(side, 0))
        stages = [*sides, *stages]
    training = stages[-1]
    training.problems += problems + begun.problems
    training.notes += begun.notes
    if left.width is not None and right.width is not None and training.writes is not None:
        stays = costs.connection_bytes(rows, left.width, right.width, settings)
        removed = sum(stage.writes or 0 for stage in stages) - stays
        kept_in = "OUT.unfinished" if out is None else unfinished(out).name
        training.notes.append(
            f"of what connecting writes, {readable_bytes(removed)} are needed only until the connection is there: they are in "
            f"{kept_in}, beside it, and removed then"
        )
    return stages


def time_steps(stages: Sequence[StagePlan], machine: Machine) -> None:
    """Say how long steps of connecting take: their operations, at the share of the rate of plain products they reach."""
    for stage in stages:
        if stage.operations is None:
            continue
        share = (TRAINING_SHARE if stage.stage == TRAINING else CONSISTENCY_SHARE)[machine.precision]
        counts: dict[Precision, float] = {
            "float32": stage.operations - stage.bfloat16_operations,
            "bfloat16": stage.bfloat16_operations,
        }
        stage.seconds = sum(
            count / (share * machine.working * machine.rate(each)) for each, count in counts.items() if count
        )


def _matched(overlaps: tuple[StoredMemory, StoredMemory], names: tuple[str, str]) -> tuple[int, list[str], list[str]]:
    """Count the items that two memories share, as connecting does; with problems and notes."""
    rows = min(map(len, overlaps))
    if rows < 2:  # told with the training
        return rows, [], []
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            places, _ = shared_places(*overlaps, names)
    except CmcrError as error:
        return rows, [words_of(error)], []
    return rows if places is None else len(places), [], [str(warning.message) for warning in told]


def _consistency(rows: int | None, space: PlannedSpace, training: StagePlan, machine: Machine) -> StagePlan:
    """Plan the semantic consistency of a space, which holds what the training will need, in the same places."""
    stage = StagePlan(f"connect: semantic consistency of {space.name}", items=rows, where=training.where)
    stage.ram, stage.gpu = training.ram, training.gpu
    if rows is None or space.outer_rows is None or space.width is None:
        return stage
    stage.operations = costs.consistency_operations(rows, space.outer_rows, space.width)
    stage.bfloat16_operations = stage.operations if machine.precision == "bfloat16" else 0.0
    outer = costs.rows_bytes(space.outer_rows, space.width, space.dtype)
    kept = training.ram is not None and training.ram + outer <= machine.ram  # by the system, after the first pass
    passes = 1 if kept else costs.passes(rows, space.width, machine.device, machine.precision)
    stage.reads = _overlap_bytes(rows, space, machine) + passes * outer
    stage.writes = costs.kept_bytes(rows, space.width)
    return stage


def _overlap_bytes(rows: int, space: PlannedSpace, machine: Machine) -> int:
    """Count the bytes of the overlap of a space, which each process reads once."""
    return 0 if space.width is None else machine.started.size * costs.rows_bytes(rows, space.width, space.dtype)


def _training(
    rows: int | None, left: PlannedSpace, right: PlannedSpace, settings: Settings, machine: Machine, out: Path
) -> StagePlan:
    stage = StagePlan(TRAINING, items=rows, where=out)
    if rows is not None and rows < 2:
        stage.problems.append(
            f"the overlap has {rows} item(s): at least 2 are needed to contrast, thousands to learn from."
        )
        return stage
    if left.width is None or right.width is None:
        return stage
    widths = left.width, right.width
    stage.reads = 0
    stage.writes = costs.connection_bytes(rows, *widths, settings) + costs.state_bytes(rows, *widths, settings)
    if rows is None:
        return stage
    batch = settings.rows_per_step(rows)
    if settings.batch_size is not None and settings.batch_size > rows:
        stage.notes.append(f"batch_size {settings.batch_size:,} is more than there is: a step takes all {rows:,} items")
    stage.operations = costs.training_operations(rows, *widths, settings)
    stage.bfloat16_operations = costs.coarse_operations(rows, *widths, settings)
    if not settings.semantic_consistency:  # else it reads the overlap
        stage.reads = sum(_overlap_bytes(rows, space, machine) for space in (left, right))
    embeddings = costs.embeddings_bytes(rows, *widths, settings)
    needs = Needs(
        ids=costs.IDS_BYTES * rows,
        embeddings=embeddings,
        hashed=embeddings // (1 + settings.semantic_consistency),  # the overlap
        step=costs.batch_bytes(-(-batch // machine.started.size), *widths, settings),
        passes=settings.epochs,
    )
    place(stage, needs, machine)
    stage.problems = [f"a step of {batch:,} items: {problem}" for problem in stage.problems]
    return stage

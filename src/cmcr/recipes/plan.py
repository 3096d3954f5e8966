"""What a run will take on this machine, stage by stage, and whether it fits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from cmcr.connection.group import Launch
from cmcr.connection.products import Precision
from cmcr.embeddings import choose_device
from cmcr.machine import available_ram_bytes, gpu_bytes, ram_bytes
from cmcr.recipes.disk import Disk, disks_of
from cmcr.recipes.gemm import gemm_rate
from cmcr.recipes.readable import readable_seconds
from cmcr.recipes.states import State


@dataclass
class StagePlan:
    """What a stage takes. None stands for what cannot be told without data or encoders.

    Attributes:
        stage: its name; the stage "connect" is told in steps, such as "connect: training".
        state: see `State`; "to do" also where nobody can tell more.
        items: of its input; for a step of connecting, rows of the overlap.
        operations: of its matrix products; None for embedding, whose encoders are not opened.
        bfloat16_operations: how many of these are in bfloat16.
        reads: bytes, from disk.
        writes: bytes of room on disk that it needs, for what it leaves and for what is removed again.
        ram: bytes held at the most.
        gpu: bytes held on the GPU at the most; None also where there is none.
        seconds: that it will take.
        where: what it writes below.
        problems: why it cannot be done here, and what would help.
        unknown: what would have to be known to tell more, and how to say it.
        notes: what is worth knowing.
    """

    stage: str
    state: State = "to do"
    items: int | None = None
    operations: float | None = None
    bfloat16_operations: float = 0.0
    reads: int | None = None
    writes: int | None = None
    ram: int | None = None
    gpu: int | None = None
    seconds: float | None = None
    where: Path | None = None
    problems: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def set_done(self) -> None:
        """Say that nothing is left to do."""
        self.state = "done"
        self.operations = self.bfloat16_operations = self.seconds = 0.0
        self.reads = self.writes = self.ram = 0
        self.gpu = None
        for said in (self.problems, self.unknown, self.notes):
            said.clear()


class Machine:
    """This machine, as far as a plan needs it; rates of products are measured when they are first asked for.

    Args:
        device: where the run will compute: "auto", "cpu", "cuda", ...
        precision: of the large products.
        started: with which other processes.

    Attributes:
        started: see above.
        ram: bytes that this process can have.
        ram_now: bytes of RAM that are available now.
        gpu: bytes of the GPU; None where there is none.
        gpu_now: bytes of it that are free now.
    """

    def __init__(self, device: str = "auto", precision: Precision = "float32", started: Launch | None = None) -> None:
        self.device: torch.device = choose_device(device)
        self.precision = precision
        self.started = started or Launch()
        self.ram = ram_bytes()
        self.ram_now = available_ram_bytes()
        self.gpu = gpu_bytes(self.device)
        self._rates: dict[Precision, float] = {}

    @cached_property
    def gpu_now(self) -> int | None:
        """Bytes of the GPU that are free."""
        return None if self.gpu is None else int(torch.cuda.mem_get_info(self.device)[0])

    def rate(self, precision: Precision) -> float:
        """Tell operations a second of matrix products."""
        if precision not in self._rates:
            self._rates[precision] = gemm_rate(self.device, precision)
        return self._rates[precision]

    @property
    def working(self) -> float:
        """How many processes' products are computed at once: as many as there are GPUs, or cores for their threads."""
        if self.device.type != "cpu":
            return float(self.started.size)
        at_once = max(1.0, min(self.started.here, _cores() / torch.get_num_threads()))
        return self.started.size / self.started.here * at_once

    def facts(self) -> dict[str, Any]:
        """Give what is known, only those rates that were needed."""
        return {
            "device": str(self.device),
            "ram_bytes": self.ram,
            "ram_available_bytes": self.ram_now,
            "gpu_bytes": self.gpu,
            "precision": self.precision,
            "processes": self.started.size,
            "operations_per_second": dict(self._rates),
        }


def _cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes:
        name: of the recipe, or what is connected.
        machine: see `Machine.facts`.
        stages: in their order.
        disks: that will be written to.
    """

    name: str
    machine: dict[str, Any]
    stages: Sequence[StagePlan]
    disks: Sequence[Disk]

    @property
    def problems(self) -> list[str]:
        """Why the run cannot fit; empty if it can, as far as that can be told."""
        own = [f"{stage.stage}: {problem}" for stage in self.stages for problem in stage.problems]
        return own + [problem for disk in self.disks for problem in disk.problems]

    @property
    def unknown(self) -> list[str]:
        """What would have to be said to tell everything, each thing once."""
        return list(dict.fromkeys(thing for stage in self.stages for thing in stage.unknown))

    @property
    def seconds(self) -> float:
        """That it will take, as far as that can be told."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    @property
    def dominating(self) -> StagePlan | None:
        """The stage that takes longest, as far as that can be told; None where nothing takes any time."""
        longest = max(self.stages, key=lambda stage: stage.seconds or 0.0, default=None)
        return longest if longest is not None and longest.seconds else None

    @property
    def verdict(self) -> str:
        """Say in a sentence what dominates."""
        untold = [stage.stage for stage in self.stages if stage.seconds is None]
        longest = self.dominating
        if longest is None or longest.seconds is None:
            return "How long it takes cannot be told yet." if untold else "Nothing is left to do."
        share = (
            f"{longest.stage} takes {100 * longest.seconds / self.seconds:.0f} % of {readable_seconds(self.seconds)}"
        )
        if not untold:
            return f"{share}."
        return f"Of what can be told, {share}; how long {len(untold)} other stage(s) take is not known."

    def as_json(self) -> dict[str, Any]:
        """Give everything as what JSON can hold, all numbers raw."""
        return {
            "name": self.name,
            "can_run": not self.problems,
            "machine": self.machine,
            "stages": [{**asdict(stage), "where": stage.where and str(stage.where)} for stage in self.stages],
            "disks": [asdict(disk) for disk in self.disks],
            "seconds": self.seconds,
            "dominating": self.dominating and self.dominating.stage,
            "verdict": self.verdict,
            "problems": self.problems,
            "unknown": self.unknown,
        }


def plan_of(name: str, machine: Machine, stages: Sequence[StagePlan]) -> Plan:
    """Put the stages together, and look at the disks they write to."""
    written = [(stage.where, stage.writes or 0) for stage in stages if stage.where is not None]
    return Plan(name, machine.facts(), stages, disks_of(written))

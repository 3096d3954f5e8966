"""Where the embeddings will be while they are trained on, by the rules of `cmcr.connection.residence`, on an idle machine."""

from __future__ import annotations

from dataclasses import dataclass

from cmcr.connection.residence import SHARE_OF_DEVICE, SHARE_OF_RAM
from cmcr.recipes.costs import BASE_BYTES
from cmcr.recipes.plan import Machine, StagePlan
from cmcr.recipes.readable import readable_bytes


@dataclass(frozen=True)
class Needs:
    """What a training needs, in bytes.

    Attributes:
        ids: in RAM, of the overlap, before room for the embeddings is looked for.
        embeddings: overlap and counterparts of both spaces, which each process holds.
        hashed: which part of these is hashed, so that stopped work is gone on with the same.
        step: beside these, of one process's part of a step, where it is computed.
        passes: over the embeddings, not bytes.
    """

    ids: int
    embeddings: int
    hashed: int
    step: int
    passes: int


def place(stage: StagePlan, needs: Needs, machine: Machine) -> None:
    """Find where the embeddings go: to the GPU, into RAM or into files; refuse a step that fits nowhere.

    Compared is with all RAM and all of the GPU, less what the process itself takes, for the run may come another day; where
    less is free now, a note says what would happen now.
    """
    on_gpu = machine.gpu is not None and needs.embeddings <= SHARE_OF_DEVICE * (machine.gpu - BASE_BYTES)
    held = BASE_BYTES + needs.ids
    started = machine.started
    in_ram = not on_gpu and started.size * needs.embeddings <= SHARE_OF_RAM * (machine.ram - started.here * held)
    if machine.gpu is not None:
        stage.gpu = BASE_BYTES + needs.step + (needs.embeddings if on_gpu else 0)
        _refuse(stage, stage.gpu, needs.embeddings if on_gpu else 0, ("on the GPU", machine.gpu))
        if not on_gpu:
            stage.notes.append(
                f"{_named(needs, machine)} take more than {SHARE_OF_DEVICE:.0%} of the GPU "
                f"({readable_bytes(machine.gpu)}): they are not kept on it"
            )
    in_one = held + (0 if machine.gpu is not None else needs.step) + (needs.embeddings if in_ram else 0)
    stage.ram = started.here * in_one
    _refuse(stage, stage.ram, started.here * needs.embeddings if in_ram else 0, ("in RAM", machine.ram))
    if not (on_gpu or in_ram):
        stage.reads = (stage.reads or 0) + needs.passes * needs.embeddings + started.size * needs.hashed
        stage.writes = (stage.writes or 0) + started.size * needs.embeddings
        stage.notes.append(
            f"{_named(needs, machine)} take more than {SHARE_OF_RAM:.0%} of the RAM "
            f"({readable_bytes(machine.ram)}): they are kept in files while it is trained, which is slower on slow disks"
        )
    _tell_now(stage, needs, machine, on_gpu, in_ram)


def _tell_now(stage: StagePlan, needs: Needs, machine: Machine, on_gpu: bool, in_ram: bool) -> None:
    """Say where the embeddings would go now, if that is another place."""
    if on_gpu and machine.gpu_now is not None and needs.embeddings > SHARE_OF_DEVICE * machine.gpu_now:
        stage.notes.append(
            f"{_named(needs, machine)} fit on the GPU, but not into {SHARE_OF_DEVICE:.0%} of what is free of it now "
            f"({readable_bytes(machine.gpu_now)}): begun now, they would be kept in RAM, or in files"
        )
    started = machine.started
    free = machine.ram_now - started.here * needs.ids
    if in_ram and started.size * needs.embeddings > SHARE_OF_RAM * free:
        stage.notes.append(
            f"{_named(needs, machine)} fit into RAM, but not into {SHARE_OF_RAM:.0%} of what is available now "
            f"({readable_bytes(machine.ram_now)}): begun now, they would be kept in files, which need as much disk "
            "and are slower"
        )


def _named(needs: Needs, machine: Machine) -> str:
    in_each = f" in each of {machine.started.size} processes" if machine.started.size > 1 else ""
    return f"embeddings ({readable_bytes(needs.embeddings)}{in_each})"


def _refuse(stage: StagePlan, needed: int, embeddings: int, limit: tuple[str, int]) -> None:
    where, there = limit
    if needed <= there:
        return
    of_which = (
        f", {readable_bytes(embeddings)} of them for the embeddings" if embeddings else " even without the embeddings"
    )
    instead = "." if where == "in RAM" else ", or compute with --device cpu."
    stage.problems.append(
        f"{readable_bytes(needed)} are needed {where}{of_which}, and there are {readable_bytes(there)}. Choose a smaller "
        f"batch_size in the settings{instead}"
    )

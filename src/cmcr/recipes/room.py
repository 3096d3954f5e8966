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
        embeddings: overlap and counterparts of both spaces.
        step: beside these, of one step, where it is computed.
        passes: over the embeddings, not bytes.
    """

    ids: int
    embeddings: int
    step: int
    passes: int


def place(stage: StagePlan, needs: Needs, machine: Machine) -> None:
    """Find where the embeddings go: to the GPU, into RAM or into files; refuse a step that fits nowhere.

    Compared is with all RAM and all of the GPU, less what the process itself takes, for the run may come another day; where
    less is free now, a note says what would happen now.
    """
    on_gpu = machine.gpu is not None and needs.embeddings <= SHARE_OF_DEVICE * (machine.gpu - BASE_BYTES)
    held = BASE_BYTES + needs.ids
    in_ram = not on_gpu and needs.embeddings <= SHARE_OF_RAM * (machine.ram - held)
    if machine.gpu is not None:
        stage.gpu = BASE_BYTES + needs.step + (needs.embeddings if on_gpu else 0)
        _refuse(stage, stage.gpu, needs.embeddings if on_gpu else 0, ("on the GPU", machine.gpu))
        if not on_gpu:
            stage.notes.append(
                f"{_named(needs)} take more than {SHARE_OF_DEVICE:.0%} of the GPU ({readable_bytes(machine.gpu)}): they are "
                "not kept on it"
            )
    stage.ram = held + (0 if machine.gpu is not None else needs.step) + (needs.embeddings if in_ram else 0)
    _refuse(stage, stage.ram, needs.embeddings if in_ram else 0, ("in RAM", machine.ram))
    if not (on_gpu or in_ram):
        stage.reads = (stage.reads or 0) + needs.passes * needs.embeddings
        stage.writes = (stage.writes or 0) + needs.embeddings
        stage.notes.append(
            f"{_named(needs)} take more than {SHARE_OF_RAM:.0%} of the RAM ({readable_bytes(machine.ram)}): they are kept in "
            "files while it is trained, which is slower on slow disks"
        )
    _tell_now(stage, needs, machine, on_gpu, in_ram)


def _tell_now(stage: StagePlan, needs: Needs, machine: Machine, on_gpu: bool, in_ram: bool) -> None:
    """Say where the embeddings would go now, if that is another place."""
    if on_gpu and machine.gpu_now is not None and needs.embeddings > SHARE_OF_DEVICE * machine.gpu_now:
        stage.notes.append(
            f"{_named(needs)} fit on the GPU, but not into {SHARE_OF_DEVICE:.0%} of what is free of it now "
            f"({readable_bytes(machine.gpu_now)}): begun now, they would be kept in RAM, or in files"
        )
    if in_ram and needs.embeddings > SHARE_OF_RAM * (machine.ram_now - needs.ids):
        stage.notes.append(
            f"{_named(needs)} fit into RAM, but not into {SHARE_OF_RAM:.0%} of what is available now "
            f"({readable_bytes(machine.ram_now)}): begun now, they would be kept in files, which need as much disk "
            "and are slower"
        )


def _named(needs: Needs) -> str:
    return f"embeddings ({readable_bytes(needs.embeddings)})"


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

"""`cmcr connect`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cmcr.cli.changes import changes_of
from cmcr.cli.console import shown_stages
from cmcr.cli.stopping import stopped_gently

if TYPE_CHECKING:
    from cmcr.connection.connection import Connection
    from cmcr.memories.memory import Memory


def connect(
    memories: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    /,
    *,
    out: Path,
    overlap: str | None = None,
    method: str = "c-mcr",
    seed: int = 0,
    device: str = "auto",
    setting: Annotated[list[str] | None, Parameter(name="--set", consume_multiple=True, negative="")] = None,
    anew: Annotated[bool, Parameter(negative="")] = False,
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Connect two spaces from their memories on disk: the shared modality in both, and one more modality of each.

    Every memory knows its space and modality, so they may come in any order; several of one kind are taken together.
    Example: cmcr connect captions-in-clip pictures captions-in-clap sounds --out my-connection

    What is done is kept in OUT.unfinished until the connection is written: stopped or killed, the same command goes on
    where it was. With several processes: torchrun --nproc-per-node 2 -m cmcr connect ...

    Parameters
    ----------
    memories
        Folders of memories, of two spaces.
    out
        Folder of the connection.
    overlap
        The shared modality, where there are two.
    method
        c-mcr, c-mcr-published or c-mcr-published-ulip.
    seed
        The same seed gives the same connection.
    device
        auto, cpu, cuda, mps. Of several processes each takes its own GPU, or all compute on the CPU.
    setting
        Changes to the method's settings, such as epochs=10 batch_size=4096.
    anew
        Drop the state of a training that was stopped, and train anew from the semantically consistent rows that are kept.
    json_output
        Print one line of JSON.
    """
    from cmcr.connection.settings import check_seed, settings_of

    changes = changes_of(setting or [])
    settings_of(method, **changes)  # now: among the arguments of connecting, names such as seed are others
    check_seed(seed)
    kinds = _kinds(memories)
    connection = _connected(
        kinds, out, changes, method=method, overlap=overlap, seed=seed, device=device, anew=anew, quiet=json_output
    )
    if connection is not None:
        _tell(connection, out, json_output)


def _kinds(memories: list[Path]) -> list[Memory]:
    """Open memories, those of one space and modality as one."""
    from cmcr.memories.memory import Memory

    kinds: dict[tuple[str, str], list[Path]] = {}
    for folder in memories:
        memory = Memory(folder)
        kinds.setdefault((memory.space, memory.modality), []).append(folder)
    return [Memory(*folders) for folders in kinds.values()]


def _connected(
    memories: list[Memory],
    out: Path,
    changes: dict[str, Any],
    *,
    method: str,
    overlap: str | None,
    seed: int,
    device: str,
    anew: bool,
    quiet: bool,
) -> Connection | None:
    """Connect and save; None in all but the first of several processes."""
    from cmcr.connection.agreement import failing_together
    from cmcr.connection.checkpoint import forget_training, remove_checkpoint, unfinished
    from cmcr.connection.connect import connect as connect_spaces
    from cmcr.connection.group import launched_group

    kept = unfinished(out)  # now: saving to "." replaces the folder that this process is in
    safe = f"what is done is safe in {kept}. Run the same command again to go on from there."
    with launched_group(device) as (peers, own_device), _told_once(peers.rank), stopped_gently(safe):
        with failing_together(peers, own_device):
            if anew and peers.rank == 0:
                forget_training(kept)
        with shown_stages(quiet=quiet or peers.rank > 0) as progress:
            connection = connect_spaces(
                *memories,
                overlap=overlap,
                method=method,
                seed=seed,
                device=own_device,
                progress=progress,
                checkpoint=kept,
                **changes,
            )
        if peers.rank > 0:
            return None
        connection.save(out)
        remove_checkpoint(kept)
    return connection


def _tell(connection: Connection, out: Path, as_json: bool) -> None:
    facts = {
        "path": str(out),
        "spaces": [space.name for space in connection.spaces],
        "overlap": connection.overlap,
        "overlap_rows": connection.overlap_rows,
        "width": connection.width,
        "final_loss": connection.history["total"][-1],
    }
    if as_json:
        print(json.dumps(facts))
        return
    left, right = connection.spaces
    print(
        f"{out}: {left.name} and {right.name}, connected through {connection.overlap_rows:,} items of {connection.overlap}, "
        f"{connection.width} wide."
    )


@contextmanager
def _told_once(rank: int) -> Iterator[None]:
    """Leave warnings to the first of several processes."""
    with warnings.catch_warnings():
        if rank > 0:
            warnings.simplefilter("ignore")
        yield

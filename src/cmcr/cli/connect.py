"""`cmcr connect`."""

from __future__ import annotations

import json
from pathlib import Path

from cmcr.cli.console import shown_stages
from cmcr.cli.options import Engine, Json, Set, memories_of, settings_of
from cmcr.cli.signals import stopped_gently


def connect(
    memories: list[Path],
    /,
    *,
    out: Path,
    overlap: str | None = None,
    method: str = "c-mcr",
    seed: int = 0,
    setting: Set = None,
    device: str = "auto",
    engine: Engine = Engine(),  # noqa: B008 - frozen
    restart: bool = False,
    replace: bool = False,
    as_json: Json = False,
) -> None:
    """Connect spaces from their memories on disk: the shared modality in both, and one more modality of each.

    Every memory knows its space and modality, so they may come in any order; several of one kind are taken together.
    With --engine ray, several workers compute the semantically consistent rows; training runs here, on one device.
    Finished work is kept in OUT.unfinished until the connection is written: stopped or killed, the same command resumes.
    Example: cmcr connect captions-in-clip pictures captions-in-clap sounds --out my-connection

    Args:
        memories: Folders of memories, of two spaces; or of more, which are linked wherever two share a modality.
        out: Folder of the connection.
        overlap: The shared modality, where there are two.
        method: c-mcr, c-mcr-published or c-mcr-published-ulip.
        seed: The same seed gives the same connection.
        device: Where to train: auto, cpu, cuda, cuda:1, mps.
        restart: Drop the state of a stopped training, and semantically consistent rows only where they are of other
            memories or settings.
    """
    from cmcr.connecting import connect_on_disk
    from cmcr.connection.methods import settings_of as check_settings

    settings = settings_of(setting)
    check_settings(method, **settings)  # first: as keywords below, words such as seed would be arguments
    kept = f"finished work is kept in {out}.unfinished. Run the same command again to resume."
    with stopped_gently(kept), shown_stages(quiet=as_json) as progress:
        connection = connect_on_disk(
            *memories_of(memories),
            out=out,
            overlap=overlap,
            method=method,
            seed=seed,
            device=device,
            **engine.keywords(),
            restart=restart,
            replace=replace,
            progress=progress,
            **settings,
        )
    names, shared, rows = [space.name for space in connection.spaces], connection.overlap, connection.overlap_rows
    if not as_json:
        print(f"{out}: {' and '.join(names)}, connected through {rows:,} items of {shared}, {connection.width} wide.")
        return
    facts = {"path": str(out), "spaces": names, "overlap": shared, "overlap_rows": rows, "width": connection.width}
    losses = connection.history.get("total")  # several links have several, a closed form has none
    print(json.dumps({**facts, "final_loss": losses[-1] if losses else None}))

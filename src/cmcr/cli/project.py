"""`cmcr project`."""

from __future__ import annotations

import json
from pathlib import Path

from cmcr.cli.console import print_memory, shown_stages
from cmcr.cli.options import Json


def project(
    connection: Path,
    memory: list[Path],
    /,
    *,
    out: Path,
    common: bool = False,
    device: str = "auto",
    as_json: Json = False,
) -> None:
    """Carry the rows of a memory through a connection, into a memory with the same ids.

    Run again it resumes, and adds the rows that the memory has got since. Cosines of such rows compare all modalities of all
    spaces; within a space they rank as the space itself does.
    Example: cmcr project my-connection sounds-in-clap --out sounds-in-common

    Args:
        connection: Folder of a connection.
        memory: Folder of a memory of one of its spaces; several of one kind are taken as one.
        out: Folder of the memory that is written, in float32.
        common: Write the common block alone: shorter rows, which compare across spaces only.
        device: Where to compute: auto, cpu, cuda, cuda:1, mps.
    """
    from cmcr.loading import load
    from cmcr.memories.memory import Memory
    from cmcr.memories.projection import write_projected

    with shown_stages(quiet=as_json) as progress:
        written = write_projected(
            load(connection),
            Memory(*memory),
            out,
            own=not common,
            device=device,
            on_progress=lambda share: progress("projecting", share),
        )
    if as_json:
        print(json.dumps({"path": str(out), "rows": len(written), "width": written.width}))
    else:
        print_memory(written, out)

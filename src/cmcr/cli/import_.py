"""`cmcr import`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def import_(
    file: Path, /, *, out: Path, json_output: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> None:
    """Turn a published C-MCR projector file into a connection.

    The file is read as tensors only; no code in it is run.

    Example: cmcr import ulip_clip.pt --out ulip-clip

    Parameters
    ----------
    file
        A published CLAP-CLIP or ULIP-CLIP file (.pt).
    out
        Folder for the connection.
    json_output
        Print one line of JSON.
    """
    from cmcr.connection.published import import_published

    connection = import_published(file)
    connection.save(out)
    names = [space.name for space in connection.spaces]
    if json_output:
        print(json.dumps({"connection": str(out), "spaces": names, "overlap": connection.overlap}))
        return
    print(f"{out}: {' + '.join(names)}, connected through {connection.overlap}. Look at it: cmcr info {out}")

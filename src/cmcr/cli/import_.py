"""`cmcr import`."""

from __future__ import annotations

import json
from pathlib import Path

from cmcr.cli.console import say
from cmcr.cli.options import Json


def import_(file: Path, /, *, out: Path, as_json: Json = False) -> None:
    """Turn a published C-MCR projector file into a connection.

    The file is read as tensors only; no code in it is run.

    Example: cmcr import ulip_clip.pt --out ulip-clip

    Args:
        file: A published CLAP-CLIP or ULIP-CLIP file (.pt).
        out: Folder for the connection.
    """
    from cmcr.published import import_published

    connection = import_published(file)
    connection.save(out)
    names = [space.name for space in connection.spaces]
    if as_json:
        print(json.dumps({"connection": str(out), "spaces": names, "overlap": connection.overlap}))
    else:
        say(f"{out}: {' + '.join(names)}, connected through {connection.overlap}. Look at it: cmcr info {out}")

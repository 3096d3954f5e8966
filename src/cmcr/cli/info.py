"""`cmcr info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cmcr.cli.console import print_table


def info(path: Path, /, *, json_output: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """Say what an artefact is.

    Example: cmcr info cmcr-demo/connections/audio-image

    Parameters
    ----------
    path
        Folder of a connection.
    json_output
        Print one line of JSON.
    """
    from cmcr.connection.artefact import load

    connection = load(path)
    facts = {
        "kind": "connection",
        "spaces": {s.name: {"modalities": list(s.modalities), "width": s.width} for s in connection.spaces},
        "overlap": connection.overlap,
        "overlap_rows": connection.overlap_rows,
        "width": connection.width,
        "method": connection.method,
        "seed": connection.seed,
    }
    if json_output:
        print(json.dumps(facts))
        return
    rows = [[key, str(value)] for key, value in facts.items() if key != "spaces"]
    rows += [
        [f"space {s.name}", f"{', '.join(s.modalities)}; {s.width} wide; {s.fingerprint or 'given as arrays'}"]
        for s in connection.spaces
    ]
    print_table(str(path), ["", ""], rows)

"""`cmcr verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def verify(path: Path, /, *, json_output: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """Check that an artefact is whole and unchanged.

    Example: cmcr verify cmcr-demo/connections/audio-image

    Parameters
    ----------
    path
        Folder of a connection.
    json_output
        Print one line of JSON.
    """
    from cmcr.connection.artefact import load

    load(path)
    print(json.dumps({"path": str(path), "whole": True}) if json_output else f"{path}: whole and unchanged.")

"""`cmcr verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter


def verify(path: Path, /, *, json_output: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """Check that an artefact is whole and unchanged: every file is hashed.

    Example: cmcr verify captions-in-clip

    Parameters
    ----------
    path
        Folder of a memory or a connection.
    json_output
        Print one line of JSON.
    """
    from cmcr.files import artefact_kind
    from cmcr.memories.verification import unfinished

    facts: dict[str, Any] = {"path": str(path), "whole": True}
    said = ""
    if unfinished(path) or artefact_kind(path) == "cmcr memory":
        from cmcr.memories.verification import verify as verify_memory

        found = verify_memory(path, show_progress_bar=False if json_output else None)
        facts |= {"kind": "memory", "rows": found.rows, "files": found.files, "bytes": found.bytes}
        said = f" {found.rows:,} rows in {found.files:,} files, {found.bytes:,} bytes."
    else:
        from cmcr.connection.artefact import load

        load(path)
    print(json.dumps(facts) if json_output else f"{path}: whole and unchanged.{said}")

"""`cmcr verify`."""

from __future__ import annotations

import json
from pathlib import Path

from cmcr.cli.console import say
from cmcr.cli.options import Json, Model, spaces_of


def verify(path: Path, /, *, model: Model = None, as_json: Json = False) -> None:
    """Check that an artefact is whole and unchanged: every file is hashed, encoders of a connection are tried.

    Example: cmcr verify captions-in-clip

    Args:
        path: Folder of a memory, a connection or an index, or a file of results.
    """
    from cmcr.artefacts import verify as verify_artefact

    facts = verify_artefact(path, encoders=spaces_of(model), show_progress_bar=False if as_json else None)
    if as_json:
        print(json.dumps(facts))
        return
    sizes = f" {facts['rows']:,} rows in {facts['files']:,} files, {facts['bytes']:,} bytes." if "rows" in facts else ""
    if facts.get("encoders_compared"):
        sizes += f" Its encoders give what they gave: {', '.join(facts['encoders_compared'])}."
    say(f"{path}: whole and unchanged.{sizes}")

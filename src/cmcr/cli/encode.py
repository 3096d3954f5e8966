"""`cmcr encode`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cmcr.cli.console import print_table
from cmcr.cli.models import models_of


def encode(
    where: str,
    /,
    *,
    image: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    text: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    audio: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    point_cloud: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    via: str | None = None,
    model: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    json_output: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Embed a few files or texts and print how similar each is to each.

    Example: cmcr encode mini-clip --image a.png b.png --text "four hundred" "seven"

    Parameters
    ----------
    where
        A space by name, or the folder of a connection.
    image
        Pictures.
    text
        Texts.
    audio
        Sounds.
    point_cloud
        Point clouds.
    via
        In a connection: the space whose encoder takes what both spaces embed.
    model
        Which models to open, as SPACE=MODEL: a repository, a folder or a file, such as ulip=pointbert.pt.
    json_output
        Print one line of JSON.
    """
    from cmcr.similarities import similarities

    given = {"image": image, "text": text, "audio": audio, "point_cloud": point_cloud}
    items = {modality: inputs for modality, inputs in given.items() if inputs}
    labels, table = similarities(where, items, via=via, models=models_of(model or []))
    if json_output:
        print(json.dumps({"items": labels, "cosines": table.tolist()}))
        return
    texts = set(text or ())
    short = [_short(label if label in texts else Path(label).name) for label in labels]
    rows = [[name, *(f"{value:.2f}" for value in row)] for name, row in zip(short, table, strict=True)]
    print_table(f"Cosines in {where}", ["", *(str(position) for position in range(1, len(short) + 1))], rows)


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"

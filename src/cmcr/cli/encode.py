"""`cmcr encode`."""

from __future__ import annotations

import json
from pathlib import Path

from cmcr.cli.console import print_table
from cmcr.cli.options import Json, Model, models_of

_NAME_LENGTH = 28


def encode(
    where: str,
    /,
    *,
    image: list[str] | None = None,
    text: list[str] | None = None,
    audio: list[str] | None = None,
    point_cloud: list[str] | None = None,
    via: str | None = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Embed a few files or texts and print how similar each is to each.

    Example: cmcr encode mini-clip --image a.png b.png --text "four hundred" "seven"

    Args:
        where: A space by name, or the folder of a connection.
        image: Pictures.
        text: Texts.
        audio: Sounds.
        point_cloud: Point clouds.
        via: In a connection: the space whose encoder takes what both spaces embed.
    """
    from cmcr.similarities import similarities

    given = {"image": image, "text": text, "audio": audio, "point_cloud": point_cloud}
    items = {modality: inputs for modality, inputs in given.items() if inputs}
    labels, table = similarities(where, items, via=via, models=models_of(model))
    if as_json:
        print(json.dumps({"items": labels, "cosines": table.tolist()}))
        return
    names = [label if label in (text or ()) else Path(label).name for label in labels]
    short = [name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…" for name in names]
    rows = [[name, *(f"{value:.2f}" for value in row)] for name, row in zip(short, table, strict=True)]
    print_table(f"Cosines in {where}", ["", *(str(position) for position in range(1, len(short) + 1))], rows)

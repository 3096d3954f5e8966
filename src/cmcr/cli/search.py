"""`cmcr search`."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cmcr.cli.console import print_table
from cmcr.cli.options import Json, Model, models_of
from cmcr.cli.thumbnails import protocol_of, strip_of
from cmcr.errors import ConfigError

if TYPE_CHECKING:
    from cmcr.search.engine import SearchIndex
    from cmcr.search.query import Hit, Part, Ranking

_WEIGHTED = re.compile(r"(.+)@([+-]?(?:\d+\.?\d*|\.\d+))", re.DOTALL)
_SCALES = {
    "connection": "cosine through the connection",
    "connection, centred": "cosine through the connection, each modality centred",
}
_LONGEST = 60  # characters of an id, a text or a path that are shown


def search(
    index: Path,
    /,
    *,
    image: list[str] | None = None,
    text: list[str] | None = None,
    audio: list[str] | None = None,
    point_cloud: list[str] | None = None,
    like: list[str] | None = None,
    targets: list[str] | None = None,
    limit: int = 10,
    offset: int = 0,
    where: list[str] | None = None,
    group_duplicates: bool = False,
    hub_correction: bool = False,
    mixed: bool = False,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Ask an index for what is most similar to a picture, a text, a sound, a point cloud, or several of them together.

    All that is given is one query. ITEM@WEIGHT says how much an item counts, below 0 that results should be unlike it; give
    a name that itself ends like that a weight too. Modalities are ranked one by one: cosines of two tables with other scales
    cannot be compared.
    Example: cmcr search my-index --audio rain.wav --text "at night" people@-0.5 --targets image --where "folder=2024/*"

    Args:
        index: Folder of an index.
        image: Pictures.
        text: Texts.
        audio: Sounds.
        point_cloud: Point clouds.
        like: Items of the index by their ids, or as MODALITY=ID where several modalities have it.
        targets: Modalities to search; else all.
        limit: Results a table.
        offset: How many of the best to pass over.
        where: Conditions on columns of the items, all of which must hold, such as "folder=night/*" "year>=2020".
        group_duplicates: Show one of several near-duplicates.
        hub_correction: Take off what each item gets from any query, before ranking.
        mixed: One table for all modalities, each centred by its own mean.
    """
    from cmcr.search.engine import SearchIndex
    from cmcr.search.query import Part, Query

    found = SearchIndex(index, models=models_of(model))
    given = {"image": image, "text": text, "audio": audio, "point_cloud": point_cloud}
    parts = [Part(modality, *_weighted(each)) for modality, items in given.items() for each in items or ()]
    parts += [_item(found, *_weighted(each)) for each in like or ()]
    rankings = found.search(
        Query(
            tuple(parts),
            targets=tuple(targets) if targets else None,
            limit=limit,
            offset=offset,
            where=tuple(where or ()),
            group_duplicates=group_duplicates,
            hub_correction=hub_correction,
            mixed=mixed,
        )
    )
    if as_json:
        print(json.dumps({"rankings": [asdict(ranking) for ranking in rankings]}, default=str))
        return
    for ranking in rankings:
        _print(ranking, offset)


def _weighted(given: str) -> tuple[str, float]:
    """Read ITEM or ITEM@WEIGHT."""
    parted = _WEIGHTED.fullmatch(given)
    return (parted[1], float(parted[2])) if parted else (given, 1.0)


def _item(index: SearchIndex, given: str, weight: float) -> Part:
    """Find an item of the index by its id."""
    from cmcr.search.query import Part

    modality, _, id_ = given.partition("=")
    named = modality in {corpus.modality for corpus in index.opened.corpora}
    numbers = index.numbers_of(id_, modality) if named else index.numbers_of(given)
    kinds = {index.item(number).modality for number in numbers}
    if not numbers:
        raise ConfigError(f"--like: the index has no item {given!r}.")
    if len(kinds) > 1:
        raise ConfigError(
            f"--like: several modalities have {given!r}: {' or '.join(f'{k}={given}' for k in sorted(kinds))}."
        )
    return Part(kinds.pop(), numbers[0], weight)


def _print(ranking: Ranking, offset: int) -> None:
    hits, scale = ranking.hits, _SCALES.get(ranking.scale, f"cosine, {ranking.scale}")
    notes = [f"{ranking.items:,} items", *["approximate"] * ranking.approximate, *["corrected"] * ranking.hub_corrected]
    rows = [
        [str(rank), f"{hit.cosine:.3f}", hit.modality, _short(hit.id), _short(_said(hit)), f"+{len(hit.duplicates)}"]
        for rank, hit in enumerate(hits, start=offset + 1)
    ]
    grouped = any(hit.duplicates for hit in hits)
    kept = [0, 1, *[2] * (ranking.modality == "all"), 3, 4, *[5] * grouped]
    heads = ["", "cosine", "modality", "id", "text or file", "alike"]
    title = f"{ranking.modality}: {scale} ({', '.join(notes)})"
    print_table(title, [heads[at] for at in kept], [[row[at] for at in kept] for row in rows], words=heads[2:5])
    protocol = protocol_of(os.environ) if sys.stdout.isatty() else None
    pictures = [hit.path for hit in hits if hit.modality == "image" and hit.path is not None]
    if protocol and pictures:
        sys.stdout.write(strip_of(pictures, protocol))


def _said(hit: Hit) -> str:
    return hit.text or ("" if hit.path is None else _shortest(hit.path))


def _shortest(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"

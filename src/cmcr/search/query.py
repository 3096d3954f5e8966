"""What is asked, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_RESULTS = 1000
"""The deepest a result list is paged: `offset + limit` of a query."""


@dataclass(frozen=True)
class Part:
    """One thing a query is made of.

    Attributes:
        modality: `image`, `text`, `audio` or `point_cloud`.
        content: what the encoder of the modality reads, such as a path or a string; or a row `(D,)` of `space`, embedded
            already (numpy, floating point); or such rows by space, as `SearchIndex.embed` gives them; or the number of an item
            of the index (an `int`).
        weight: how much it counts; below 0 the results should be unlike it. Not 0.
        space: whose encoder reads it, or whose row it is; None takes the space of what is searched if that embeds the
            modality, else the first that does.
    """

    modality: str
    content: Any
    weight: float = 1.0
    space: str | None = None


@dataclass(frozen=True)
class Query:
    """A question to an index.

    Attributes:
        parts: one or more; several are added up by their weights after each was scaled to length one.
        targets: modalities to search; None searches all.
        limit: results a ranking, from 1.
        offset: how many of the best to pass over, for the next page.
        where: conditions on columns of the item table, all of which must hold, such as `"folder=night/*"`, `"year>=2020"`;
            see `cmcr.search.items.Condition`.
        group_duplicates: show one of several near-duplicates, and name the others in it.
        hub_correction: rank by cosines less what each item gets from any query (nearest-neighbour normalisation).
        mixed: one ranking over all modalities, each centred by its own mean, instead of one for each.
    """

    parts: tuple[Part, ...]
    targets: tuple[str, ...] | None = None
    limit: int = 10
    offset: int = 0
    where: tuple[str, ...] = ()
    group_duplicates: bool = False
    hub_correction: bool = False
    mixed: bool = False


@dataclass(frozen=True)
class Hit:
    """One item that was found.

    Attributes:
        item: its number in the index, by which its media are asked for and which a `Part` may hold.
        id: of the item in its memory.
        modality, space: what it is, and in which space it was embedded.
        cosine: with the query, in [-1, 1], on the scale of its ranking.
        path: the file it was made from, None where there is none on this machine (a row of a table, a member of a tar file).
        text: of a text, where it is known.
        columns: the item's row of the item table.
        duplicates: numbers of the items that were grouped with it.
    """

    item: int
    id: str
    modality: str
    space: str
    cosine: float
    path: Path | None = None
    text: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    duplicates: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ranking:
    """The results of one modality in one space, or of all in one list (`mixed`).

    Attributes:
        modality: of its items; "all" of a mixed ranking.
        space: of its items; "all" of a mixed ranking.
        scale: what the cosines are comparable with: the name of a space (its own cosines), "connection" (the common block),
            or "connection, centred" (mixed). Cosines of two scales must not be compared.
        items: how many items were compared, after the filter.
        hits: `limit` of them at most, best first.
        approximate: whether a back-end that may miss an item has found them.
        hub_corrected: whether they are ranked by cosines less what each item gets from any query; their cosines are plain.
    """

    modality: str
    space: str
    scale: str
    items: int
    hits: tuple[Hit, ...]
    approximate: bool = False
    hub_corrected: bool = False

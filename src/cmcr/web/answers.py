"""Answers of the JSON API from an index that is open, in the form of `schemas`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from cmcr._version import __version__
from cmcr.errors import ConfigError
from cmcr.search.engine import SearchIndex
from cmcr.search.items import Item
from cmcr.search.parts import COMMON
from cmcr.search.query import MOST_RESULTS, Hit, Query
from cmcr.web.bounds import Limits

Answer = dict[str, Any]


def facts(now: SearchIndex, limits: Limits) -> Answer:
    """Say what can be asked, and of what: `schemas.IndexFacts`."""
    corpora = now.opened.corpora
    return {
        "hash": now.hash[:12],
        "version": __version__,
        "items": sum(len(corpus) for corpus in corpora),
        "spaces": now.opened.connection.spaces,
        "modalities": now.modalities,
        "corpora": [
            {"space": each.space, "modality": each.modality, "rows": len(each), "live": int(each.live.sum())}
            for each in corpora
        ],
        "columns": now.columns,
        "back_end": ", ".join(sorted({corpus.common_index.kind for corpus in corpora})),
        "limits": {**vars(limits), "results": MOST_RESULTS},
    }


def drawn_map(now: SearchIndex) -> Answer:
    """Give the points of the map: `schemas.Map`."""
    drawn = now.opened.map
    return {
        "corpora": [
            {
                "space": corpus.space,
                "modality": corpus.modality,
                "items": (positions + corpus.first).tolist(),
                "points": points.astype(np.float64).round(4).tolist(),
            }
            for corpus, positions, points in zip(now.opened.corpora, drawn.positions, drawn.points, strict=True)
        ]
    }


def found(now: SearchIndex, query: Query, placed: bool) -> Answer:
    """Search: `schemas.Found`, with the query's point on the map if it is to be placed; raises as `SearchIndex.search`."""
    started = time.perf_counter()
    rankings = [
        {**vars(ranking), "hits": [item(now, hit, hit.item) for hit in ranking.hits]} for ranking in now.search(query)
    ]
    point = _point(now, query) if placed else None
    return {"rankings": rankings, "point": point, "seconds": time.perf_counter() - started}


def _point(now: SearchIndex, query: Query) -> list[float] | None:
    """Place a query on the map, where each corpus lies around its own mean: by the mean of the query's modality."""
    try:
        vector = now.vector_for(query.parts, COMMON)
    except ConfigError:  # what differs in a space of its own may cancel in the common block
        return None
    corpora, modality = now.opened.corpora, query.parts[0].modality
    alike = [corpus.mean_common for corpus in corpora if corpus.modality == modality]
    mean = np.mean(alike or [corpus.mean_common for corpus in corpora], axis=0)
    placed: list[float] = now.opened.map.place(vector[None], mean)[0].tolist()
    return placed


def item(now: SearchIndex, known: Item | Hit, number: int) -> Answer:
    """Describe an item (`schemas.Item`) or a hit (`schemas.Hit`); its addresses change with the index."""

    def address(what: str, modality: str) -> str | None:
        fits = known.path is not None and known.modality == modality
        return f"/api/items/{number}/{what}?v={now.hash[:12]}" if fits else None

    return {
        **vars(known),
        "item": number,
        "media_url": address("media", known.modality),
        "thumbnail_url": address("thumbnail", "image"),
        "points_url": address("points", "point_cloud"),
    }

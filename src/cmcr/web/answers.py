"""Answers of the JSON API, in the form of `schemas`, from an index that is open. Nothing checks them again, for speed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from fastapi import HTTPException

from cmcr._version import __version__
from cmcr.errors import ConfigError
from cmcr.search.engine import SearchIndex
from cmcr.search.items import Item
from cmcr.search.parts import COMMON
from cmcr.search.query import MOST_RESULTS, Hit, Query
from cmcr.web.limits import Limits

Answer = dict[str, Any]


def facts(now: SearchIndex, limits: Limits) -> Answer:
    """Say what can be asked, and of what: `schemas.IndexFacts`."""
    opened = now.opened
    return {
        "hash": now.hash[:12],
        "version": __version__,
        "items": sum(len(corpus) for corpus in opened.corpora),
        "spaces": [
            {"name": space.name, "modalities": list(space.modalities), "width": space.width}
            for space in opened.connection.spaces
        ],
        "modalities": list(now.modalities),
        "corpora": [
            {"space": each.space, "modality": each.modality, "rows": len(each), "live": int(each.live.sum())}
            for each in opened.corpora
        ],
        "columns": list(now.columns),
        "back_end": ", ".join(sorted({corpus.common_index.kind for corpus in opened.corpora})),
        "limits": {
            "body_bytes": limits.body_bytes,
            "json_bytes": limits.json_bytes,
            "picture_pixels": limits.picture_pixels,
            "sound_seconds": limits.sound_seconds,
            "results": MOST_RESULTS,
        },
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


def found(now: SearchIndex, query: Query) -> Answer:
    """Search: `schemas.Found`; raises as `SearchIndex.search`."""
    started = time.perf_counter()
    rankings = [
        {**vars(ranking), "hits": [_hit(hit, now.hash[:12]) for hit in ranking.hits]} for ranking in now.search(query)
    ]
    return {"rankings": rankings, "point": _point(now, query), "seconds": time.perf_counter() - started}


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


def _hit(hit: Hit, hash_: str) -> Answer:
    return {**_shown(hit, hit.item, hash_), "cosine": hit.cosine, "duplicates": hit.duplicates}


def item(now: SearchIndex, number: int) -> Answer:
    """Describe an item: `schemas.Item`; raises as `item_of`."""
    return _shown(item_of(now, number), number, now.hash[:12])


def item_of(now: SearchIndex, number: int) -> Item:
    """Find an item.

    Raises:
        HTTPException: 404, there is none of this number.
    """
    try:
        return now.item(number)
    except ConfigError as error:
        raise HTTPException(404, str(error)) from error


def _shown(known: Item | Hit, number: int, hash_: str) -> Answer:
    def address(what: str, modality: str) -> str | None:
        fits = known.path is not None and known.modality == modality
        return f"/api/items/{number}/{what}?v={hash_}" if fits else None

    return {
        "item": number,
        "id": known.id,
        "modality": known.modality,
        "space": known.space,
        "text": known.text,
        "columns": known.columns,
        "has_media": known.path is not None,
        "media_url": address("media", known.modality),
        "thumbnail_url": address("thumbnail", "image"),
        "points_url": address("points", "point_cloud"),
    }

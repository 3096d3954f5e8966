"""Questions to an index: any modality asks for any other, and what is found comes ranked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cmcr.arrays import as_read, check_count, normalized
from cmcr.errors import ConfigError, unknown_name
from cmcr.memories.memory import Memory
from cmcr.search.index import Index
from cmcr.search.items import Condition, Item
from cmcr.search.layout import Corpus, open_folder
from cmcr.search.parts import COMMON, Asked, Encoders, Row, is_item
from cmcr.search.query import MOST_RESULTS, Hit, Part, Query, Ranking
from cmcr.spaces.protocol import Space
from cmcr.spaces.registry import names_space

NEAR_DUPLICATE = 0.97
"""Cosine in their own space from which items are near-duplicates; see docs/search.md for how it was chosen."""

_MORE, _LEAST = 4, 1000  # times what is asked, and at least: candidates where their order changes or some are grouped

Mask = NDArray[np.bool_] | None
"""`(N,)` which items of a corpus fulfil the conditions; None where there are none."""


class _Shown(NamedTuple):
    """An item that is shown: its number, what it is ranked by, its cosine, and its duplicates' numbers."""

    item: int
    score: float
    cosine: float
    duplicates: tuple[int, ...]


class SearchIndex:
    """An index, open to be searched; any number of threads may ask.

        index = cmcr.SearchIndex("my-index")
        for ranking in index.search(audio="dog.wav", targets=("image",)):
            print([(hit.id, hit.cosine) for hit in ranking.hits])

    Args:
        folder: what `cmcr.index` has written.
        encoders: spaces to attach, such as `[cmcr.space("clip", device="cuda")]`. Those of the miniature spaces and of
            registered spaces are found without being given.
        models: by a space's name, the model to open it with; the index knows those it was made with. They are opened when
            they are first needed.

    Attributes:
        opened: what is in the folder.
        modalities: that can be asked: those with an encoder.
        columns: of the item table, for conditions.
        hash: of the manifest; another one after each update.

    Raises:
        ArtefactError: not an index, or not whole.
        ConfigError: an encoder of no space of the connection, or another than that which made its embeddings.
    """

    def __init__(
        self, folder: str | Path, *, encoders: Sequence[Space] = (), models: Mapping[str, str] | None = None
    ) -> None:
        self.opened = open_folder(folder, encoders=encoders)
        self.columns = self.opened.items.columns
        self.hash = hashlib.sha256(self.opened.manifest.model_dump_json().encode()).hexdigest()
        known = self.opened.manifest.encoders
        options = {
            name: dict(how)
            for name, how in known.items()
            if "model" in how and (names_space(name) or names_space(str(how["model"])))
        }
        for name, model in (models or {}).items():
            if name not in known:
                raise unknown_name("space", name, known)
            options[name] = {"model": model}
        self._encoders = Encoders(self.opened.connection, options)
        self.modalities = self._encoders.modalities

    @property
    def encoders(self) -> Mapping[str, Any]:
        """The encoders that are open by now, by space: give them to the index when it is opened again after an update."""
        return dict(self._encoders.open)

    def search(
        self,
        query: Query | None = None,
        *,
        image: Any = None,
        text: Any = None,
        audio: Any = None,
        point_cloud: Any = None,
        **options: Any,
    ) -> list[Ranking]:
        """Find what is most similar to a query, one ranking for each corpus; or one in all, if the query is `mixed`.

        A corpus whose own space can read all parts is searched there, by the space's own cosines; any other through the
        connection. Items of the index that are asked with are left out of the results.

        Args:
            query: the question; or, without it, what it is made of:
            image: one item or a list of them; see `Part.content`.
            text: the same.
            audio: the same.
            point_cloud: the same.
            **options: fields of `Query` besides its parts, such as `targets=("image",)`, `limit=20`.

        Raises:
            ConfigError: a query that makes no sense, or that nobody here can read.
            EmbeddingsError: a vector that cannot be used.
            SampleError: an item that cannot be decoded.
        """
        content = {"image": image, "text": text, "audio": audio, "point_cloud": point_cloud}
        given = [Part(name, each) for name, one in content.items() for each in _listed(one)]
        if query is None:
            query = Query(tuple(given), **_known_options(options))
        elif given or options:
            raise ConfigError("expected a Query, or what it is made of as keywords, not both.")
        _check(query)
        asked = self._asked(query.parts)
        numbers = self._targets(query.targets)
        conditions = [Condition.parse(text) for text in query.where]
        allowed = {n: self.opened.items.mask(n, conditions) if conditions else None for n in numbers}
        if query.mixed:
            return [self._mixed(query, asked, allowed)]
        if query.hub_correction:
            self._check_hubs(query.parts, asked, numbers)
        return [self._ranked(query, asked, number, mask) for number, mask in allowed.items()]

    def embed(self, part: Part) -> dict[str, Row]:
        """Embed a part in every space that reads it, or in the one it names: `(D,)` unit rows by space.

        A part whose `content` they are asks the same as this one, without embedding anything again. Raises as `search`.
        """
        asked = self._asked([part])
        return {space: asked.row(0, space) for space in asked.spaces()}

    def vector_for(self, parts: Sequence[Part], scale: str) -> Row:
        """Make one vector of parts: `(D,)` unit row, in a space by its name, or in the common block by "connection".

        Raises:
            ConfigError: a part that this space does not read; and as `search`.
        """
        asked = self._asked(parts)
        if scale != COMMON and not asked.within(scale):
            raise ConfigError(f"space {scale!r} does not read all parts of the query: use {COMMON!r}.")
        return asked.vector(scale)[0]

    def item(self, number: int) -> Item:
        """Give what the item table knows of an item; raises ConfigError for a number that no item has."""
        return self.opened.items.items([number])[0]

    def numbers_of(self, id: str, modality: str | None = None) -> list[int]:
        """Find the items of an id, in all corpora or those of one modality: their numbers."""
        spans = [self.opened.manifest.spans()[n] for n in self._targets(None if modality is None else (modality,))]
        return [number for number in self.opened.items.numbers_of(id) if any(number in span for span in spans)]

    def _asked(self, parts: Sequence[Part]) -> Asked:
        return Asked(parts, self.opened.connection, self._encoders, self.opened.corpora)

    def _targets(self, targets: Sequence[str] | None) -> list[int]:
        """Find the corpora to search."""
        has = [corpus.modality for corpus in self.opened.corpora]
        for target in targets or ():
            if target not in has:
                raise unknown_name("target", target, set(has))
        return [number for number, modality in enumerate(has) if targets is None or modality in targets]

    def _check_hubs(self, parts: Sequence[Part], asked: Asked, numbers: Sequence[int]) -> None:
        wanted = {part.modality for part in parts}
        if not any(wanted & set(_block(self.opened.corpora[number], asked)[-1]) for number in numbers):
            raise ConfigError(
                f"hub_correction: the index has no {' or '.join(sorted(wanted))} to take reference queries from, where it "
                "would be searched. Index some, or give memories of it as references (--references), or leave it out."
            )

    def _ranked(self, query: Query, asked: Asked, number: int, allowed: Mask) -> Ranking:
        corpus = self.opened.corpora[number]
        scale, rows, index, hubs = _block(corpus, asked)
        vector, length = asked.vector(scale, near=corpus.space)
        taken = _hub_weights(query, hubs, length)
        (scores,), (positions,) = index.search(np.concatenate([vector, taken])[None], _depth(query), allowed=allowed)
        corrected = bool(taken.any())
        cosines = _rows_at(rows, positions) @ vector if corrected else scores
        hits, items = (
            self._hits(query, _shown(query, corpus, positions, scores, cosines)),
            _count(query, corpus, allowed),
        )
        approximate = not index.exact and allowed is None
        return Ranking(corpus.modality, corpus.space, scale, items, hits, approximate, corrected)

    def _mixed(self, query: Query, asked: Asked, allowed: Mapping[int, Mask]) -> Ranking:
        """Rank all modalities in one list, each centred by its own mean in the common block.

        The inner product with a row less a mean ranks as that with the row, so the best are among its best: only the lengths
        of centred rows differ.
        """
        vector, _ = asked.vector(COMMON, centred=True)
        merged, compared, approximate = list[_Shown](), 0, False
        for number, mask in allowed.items():
            corpus = self.opened.corpora[number]
            asking = np.pad(vector, (0, len(corpus.common_hubs)))[None]
            _, (positions,) = corpus.common_index.search(asking, _depth(query), allowed=mask)
            centred = normalized(torch.from_numpy(_rows_at(corpus.common, positions) - corpus.mean_common)).numpy()
            cosines = centred @ vector
            order = np.argsort(-cosines, kind="stable")
            merged += _shown(query, corpus, positions[order], cosines[order], cosines[order])
            compared += _count(query, corpus, mask)
            approximate |= not corpus.common_index.exact and mask is None
        merged.sort(key=lambda each: (-each.score, each.item))
        return Ranking("all", "all", f"{COMMON}, centred", compared, self._hits(query, merged), approximate)

    def _hits(self, query: Query, shown: Sequence[_Shown]) -> tuple[Hit, ...]:
        page = shown[query.offset : query.offset + query.limit]
        known = self.opened.items.items([each.item for each in page])
        return tuple(
            Hit(
                item=each.item,
                id=item.id,
                modality=item.modality,
                space=item.space,
                cosine=each.cosine,
                path=item.path,
                text=item.text,
                columns=dict(item.columns),
                duplicates=each.duplicates,
            )
            for each, item in zip(page, known, strict=True)
        )


def _depth(query: Query) -> int:
    """Choose how many of the best of a corpus are looked at."""
    wanted = query.offset + query.limit
    if query.mixed or query.group_duplicates:
        return max(_MORE * wanted, _LEAST)
    return wanted + sum(is_item(part.content) for part in query.parts)


def _asking(query: Query, corpus: Corpus) -> list[int]:
    """Find the items of a corpus that ask, which are left out of what is found: their positions."""
    positions = {int(part.content) - corpus.first for part in query.parts if is_item(part.content)}
    return [position for position in positions if 0 <= position < len(corpus)]


def _count(query: Query, corpus: Corpus, allowed: Mask) -> int:
    """Count the items that are compared."""
    counting = corpus.live if allowed is None else allowed
    return int(np.count_nonzero(counting)) - int(np.count_nonzero(counting[_asking(query, corpus)]))


def _shown(query: Query, corpus: Corpus, positions: NDArray[np.int64], scores: Row, cosines: Row) -> list[_Shown]:
    """Choose what is shown of the best, which come best first: from the first rank on, so that pages fit together."""
    kept = ~np.isin(positions, _asking(query, corpus))
    positions, scores, cosines = positions[kept], scores[kept], np.clip(cosines[kept], -1, 1)
    wanted, numbers = query.offset + query.limit, (positions + corpus.first).tolist()
    groups = [[place] for place in range(len(positions))]
    if query.group_duplicates:
        groups = _grouped(_rows_at(corpus.own, positions), wanted)
    return [
        _Shown(numbers[first], float(scores[first]), float(cosines[first]), tuple(numbers[other] for other in others))
        for first, *others in groups[:wanted]
    ]


def _block(corpus: Corpus, asked: Asked) -> tuple[str, Memory, Index, Sequence[str]]:
    """Choose where a corpus is searched: the scale, the rows, the back-end, the modalities of their hub coordinates."""
    if asked.within(corpus.space):
        return corpus.space, corpus.own, corpus.own_index, corpus.own_hubs
    return COMMON, corpus.common, corpus.common_index, corpus.common_hubs


def _hub_weights(query: Query, hubs: Sequence[str], length: float) -> Row:
    """Give the query's extra coordinates: what each part asks for is corrected by what its modality gets at all."""
    taken = np.zeros(len(hubs), dtype=np.float32)
    for part in query.parts if query.hub_correction else ():
        if part.modality in hubs:
            taken[list(hubs).index(part.modality)] -= part.weight / length
    return taken


def _grouped(rows: Row, wanted: int) -> list[list[int]]:
    """Group near-duplicates: in rank order, an item joins the first shown one that it is as similar to.

    Returns:
        the places of each group's items in rank order, the shown one first; no more groups than wanted.
    """
    alike = rows @ rows.T >= NEAR_DUPLICATE
    left, groups = np.ones(len(rows), dtype=np.bool_), list[list[int]]()
    for place in range(len(rows)):
        if left[place] and len(groups) < wanted:
            alike[place, place] = True
            groups.append(np.flatnonzero(alike[place] & left).tolist())
            left[groups[-1]] = False
    return groups


def _rows_at(memory: Memory, positions: NDArray[np.int64]) -> Row:
    """Read rows by position, of length one again after rounding."""
    return as_read(memory, memory[positions]).numpy()


def _listed(given: Any) -> Sequence[Any]:
    if given is None:
        return ()
    return given if isinstance(given, list | tuple) else (given,)


def _known_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check names; a single target or condition may stand for a sequence of them."""
    for name in options:
        if name not in Query.__dataclass_fields__ or name == "parts":
            raise unknown_name("option of a query", name, set(Query.__dataclass_fields__) - {"parts"})
    return {name: (value,) if isinstance(value, str) else value for name, value in options.items()}


def _check(query: Query) -> None:
    """Make sure that a query makes sense, whatever the index holds; raises ConfigError."""
    check_count("limit", query.limit)
    if isinstance(query.offset, bool) or not isinstance(query.offset, int) or query.offset < 0:
        raise ConfigError(f"offset: expected a whole number of at least 0, got {query.offset!r}.")
    if query.offset + query.limit > MOST_RESULTS:
        raise ConfigError(
            f"offset and limit: results go {MOST_RESULTS} deep, got {query.offset} + {query.limit}. Narrow it by `where`."
        )
    if query.mixed and query.hub_correction:
        raise ConfigError("mixed and hub_correction do not go together: choose one.")

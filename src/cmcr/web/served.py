"""What is served: the index that is open now, and what was asked with; opened again when the index was updated."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray

from cmcr.errors import CmcrError, ConfigError, unknown_name, words_of
from cmcr.files import MANIFEST
from cmcr.search.engine import SearchIndex
from cmcr.search.items import Item
from cmcr.search.query import Part, Query
from cmcr.web import answers, schemas
from cmcr.web.bounds import Lane, Latest, Limits
from cmcr.web.heatmaps import Cells
from cmcr.web.metrics import Metrics
from cmcr.web.uploads import checked, hash_of

Rows = dict[str, NDArray[np.float32]]
"""A text or an upload, embedded: `(D,)` by space."""

OpenIndex = Callable[[SearchIndex | None], SearchIndex]
"""Opens the index; given the one that was open before, it may use its encoders again."""

_LOOK_SECONDS = 1.0
_SEARCHES = 2  # at once: one on small indexes is held up by Python alone, one on large ones uses every core itself
_PICTURES = 100  # whose cells are kept
_log = logging.getLogger("cmcr.web")


class Served:
    """An index, served.

    Args:
        open_index: opens it, now and after each update; may raise CmcrError.
        limits: see `Limits`.

    Attributes:
        now: what new requests are answered from, replaced by one assignment; a request uses one from beginning to end.
        problem: why an update could not be opened; None where it could.
        metrics: of all requests.
        rows, cells: of texts and uploads; of pictures.
        encodings, searches, readings: threads.
    """

    def __init__(self, open_index: OpenIndex, limits: Limits | None = None) -> None:
        self._open_index, self.limits = open_index, limits or Limits()
        self.now = open_index(None)
        self._stamp = _stamp_of(self.now.opened.folder)
        self.problem: str | None = None
        self.metrics = Metrics()
        self.rows, self.cells = Latest[Rows](self.limits.kept), Latest[Cells](_PICTURES)
        self.encodings = Lane("encodings", 1, self.limits.encodings)
        self.searches = Lane("searches", _SEARCHES, self.limits.searches)
        self.readings = Lane("readings", 2, self.limits.searches)

    def warm(self) -> None:
        """Embed one item of each modality and search once, so that no request waits for what is done the first time."""
        random = np.random.default_rng(0)
        samples: dict[str, Any] = {
            "text": "warm",
            "image": np.full((64, 64, 3), 127, dtype=np.uint8),
            "audio": {"array": 0.1 * random.standard_normal(48_000, dtype=np.float32), "sampling_rate": 48_000},
            "point_cloud": random.standard_normal((2048, 3), dtype=np.float32),
        }
        parts = [Part(modality, self.now.embed(Part(modality, samples[modality]))) for modality in self.now.modalities]
        for part in parts[:1]:
            answers.found(self.now, Query((part,)), placed=True)

    async def watch(self) -> None:
        """Open the index again whenever its manifest changes; an update that cannot be opened changes `problem` alone."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            stamp = _stamp_of(self.now.opened.folder)
            if stamp == self._stamp:
                continue
            self._stamp = stamp
            try:
                self.now, self.problem = await asyncio.to_thread(self._open_index, self.now), None
            except Exception as error:
                told = words_of(error) if isinstance(error, CmcrError) else f"{type(error).__name__}: {error}"
                self.problem = f"the index was updated, but cannot be opened: {told}"
                _log.warning("%s The one that was open before is still served.", self.problem)

    def close(self) -> None:
        """Let running work end."""
        for lane in (self.encodings, self.searches, self.readings):
            lane.close()

    def item(self, now: SearchIndex, number: int) -> Item:
        """Find an item; raises HTTPException 404 where there is none of this number."""
        try:
            return now.item(number)
        except ConfigError as error:
            raise HTTPException(404, str(error)) from error

    async def take(self, modality: str, name: str, content: bytes) -> tuple[str, Rows]:
        """Check an upload and embed it in every space that reads it; give its hash and these embeddings, which are kept.

        Raises:
            HTTPException: 503, too many wait for an encoder.
            ConfigError, SampleError, MissingDependencyError: as `checked`, or as the encoders.
        """
        now = self.now
        if modality not in now.modalities:
            raise unknown_name("modality", modality, now.modalities)

        def work() -> tuple[str, Rows]:
            source, hash_ = checked(modality, name, content, self.limits), hash_of(modality, content, name)
            return hash_, self._embedded(now, hash_, Part(modality, source))

        return await self.encodings.run(work)

    async def parts(self, given: Sequence[schemas.Part], now: SearchIndex) -> tuple[Part, ...]:
        """Turn parts of a request into parts of a query; texts are embedded in the thread for that.

        Raises:
            HTTPException: 404 for an upload that is not kept, 503 if too many wait for an encoder.
            ConfigError: what cannot be embedded.
        """
        return tuple([Part(part.modality, await self._content(part, now), part.weight, part.space) for part in given])

    async def _content(self, part: schemas.Part, now: SearchIndex) -> Any:
        if part.vector is not None:
            return np.array(part.vector)
        if part.item is not None:
            return part.item
        hash_ = part.upload or hash_of("text", str(part.text).encode())
        if rows := self.rows.get((now.opened.manifest.connection_hash, part.modality, hash_)):
            return rows
        if part.upload is not None:
            raise HTTPException(404, f"no upload {hash_[:12]}… of this modality is kept any more: give the file again.")
        return await self.encodings.run(self._embedded, now, hash_, Part("text", part.text))

    def _embedded(self, now: SearchIndex, hash_: str, part: Part) -> Rows:
        rows = now.embed(part)
        self.rows.put((now.opened.manifest.connection_hash, part.modality, hash_), rows)
        return rows


def _stamp_of(folder: Path) -> tuple[int, ...]:
    """Tell one manifest from another without reading it."""
    try:
        status = (folder / MANIFEST).stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size

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
from cmcr.search.query import Part, Query
from cmcr.web import schemas
from cmcr.web.heatmaps import Cells
from cmcr.web.kept import Kept
from cmcr.web.lanes import Lane
from cmcr.web.limits import Limits
from cmcr.web.media import Shown
from cmcr.web.metrics import Metrics
from cmcr.web.uploads import Uploaded, uploaded

Rows = dict[str, NDArray[np.float32]]
"""A text or an upload, embedded: `(D,)` by space."""

OpenIndex = Callable[[SearchIndex | None], SearchIndex]
"""Opens the index; given the one that was open before, it may use its encoders again."""

_LOOK_SECONDS = 1.0
_SEARCHES = 2  # at once: one on small indexes is held up by Python alone, one on large ones uses every core itself
_TEXTS, _TEXTS_BYTES = 10_000, 64 * 2**20
_SHOWN, _CELLS, _SHOWN_BYTES = 5000, 500, 64 * 2**20
_log = logging.getLogger("cmcr.web")


class Served:
    """An index, served.

    Args:
        open_index: opens it, now and after each update.
        limits: see `Limits`.

    Attributes:
        now: what new requests are answered from, replaced by one assignment; a request uses one from beginning to end.
        problem: why an update could not be opened; None where it could.
        metrics: of all requests.
        uploads, shown, cells: what was uploaded; thumbnails and points; cells of pictures.
        encodings, searches, readings: threads.

    Raises:
        CmcrError: as `open_index`.
    """

    def __init__(self, open_index: OpenIndex, limits: Limits | None = None) -> None:
        self._open_index, self.limits = open_index, limits or Limits()
        self.now = open_index(None)
        self._stamp = _stamp_of(self.now.opened.folder)
        self.problem: str | None = None
        self.metrics = Metrics()
        self.uploads = Kept[Uploaded](self.limits.uploads, self.limits.kept_bytes)
        self.shown: Shown = Kept(_SHOWN, _SHOWN_BYTES)
        self.cells: Cells = Kept(_CELLS, _SHOWN_BYTES)
        self._rows = Kept[Rows](_TEXTS, _TEXTS_BYTES)
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
            self.now.search(Query((part,)))

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

    async def take(self, modality: str, name: str, content: bytes) -> tuple[Uploaded, Rows]:
        """Check an upload, embed it in every space that reads it, and keep it.

        Raises:
            HTTPException: 503, too many wait for an encoder.
            ConfigError, SampleError, MissingDependencyError: as `uploaded`, or as the encoders.
        """
        now = self.now
        if modality not in now.modalities:
            raise unknown_name("modality", modality, now.modalities)

        def work() -> tuple[Uploaded, Rows]:
            taken = uploaded(modality, name, content, self.limits)
            return taken, self._embedded(now, modality, taken)

        taken, rows = await self.encodings.run(work)
        self.uploads.put(taken.hash, taken, len(content))
        return taken, rows

    def uploaded(self, hash_: str) -> Uploaded:
        """Find an upload.

        Raises:
            HTTPException: 404, it is not kept (any more).
        """
        if (found := self.uploads.get(hash_)) is None:
            raise HTTPException(404, f"the upload {hash_[:12]}… is not kept any more: give the file again.")
        return found

    async def parts(self, given: Sequence[schemas.Part], now: SearchIndex) -> tuple[Part, ...]:
        """Turn parts of a request into parts of a query; texts and uploads are embedded in the thread for that.

        Raises:
            HTTPException: 404 for an upload that is not kept, 503 if too many wait for an encoder.
            ConfigError, SampleError: an upload of another modality, or what cannot be embedded.
        """
        return tuple([Part(part.modality, await self._content(part, now), part.weight, part.space) for part in given])

    async def _content(self, part: schemas.Part, now: SearchIndex) -> Any:
        if part.vector is not None:
            return np.array(part.vector)
        if part.item is not None:
            return part.item
        raw: str | Uploaded = part.text or self.uploaded(str(part.upload))
        if isinstance(raw, Uploaded) and raw.modality != part.modality:
            raise ConfigError(f"the upload is of the modality {raw.modality!r}, not {part.modality!r}.")
        rows = self._rows.get(_key(now, raw))
        return rows or await self.encodings.run(self._embedded, now, part.modality, raw)

    def _embedded(self, now: SearchIndex, modality: str, raw: str | Uploaded) -> Rows:
        rows = now.embed(Part(modality, raw.source if isinstance(raw, Uploaded) else raw))
        self._rows.put(_key(now, raw), rows, sum(row.nbytes for row in rows.values()))
        return rows


def _key(now: SearchIndex, raw: str | Uploaded) -> tuple[str, str]:
    """Name the rows of a text or an upload: those of another connection are of other encoders."""
    return now.opened.manifest.connection_hash, raw.hash if isinstance(raw, Uploaded) else f"text {raw}"


def _stamp_of(folder: Path) -> tuple[int, ...]:
    """Tell one manifest from another without reading it."""
    try:
        status = (folder / MANIFEST).stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns, status.st_size

"""Embed the shards of a run: what happens here and in every worker on Ray alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from cmcr.arrays import is_number
from cmcr.data.items import Entry, ItemList, as_id
from cmcr.data.paths import NamedBytes
from cmcr.errors import ConfigError, DimensionError, ResumeError, TooManyFailuresError
from cmcr.memories.layout import Origin, Quarantined, Shard
from cmcr.memories.survey import Identity, digest_of
from cmcr.memories.writer import MemoryWriter
from cmcr.spaces.protocol import EncodedBatch, Space
from cmcr.spaces.tower import encode_batches_of

OnBatch = Callable[[int, int, str], None]
"""Called with how many items were tried since the last call, how many of them failed, and why the last of those did."""

JUDGED_AFTER = 1000
"""Items of which a share is taken at least, so that a bad start does not stop a good run."""

T = TypeVar("T")
_BATCH_BYTES = 256 * 2**20  # of files that lie in others; a batch ends there
_Item = tuple[Entry, Any]
"""An entry of the list, and its content."""


class FailureLimit:
    """Counts failures, and stops a run that has too many.

    Args:
        allowed: from 1 on a whole number of items; below 1 a share of the items tried so far, taken of 1000 at least.

    Raises:
        ConfigError: neither.
    """

    def __init__(self, allowed: float) -> None:
        if not is_number(allowed) or allowed < 0 or (allowed >= 1 and allowed != int(allowed)):
            raise ConfigError(
                f"max_failures: expected a number of items or a share below 1, such as 100 or 0.05, got {allowed!r}."
            )
        self.allowed = allowed
        self.tried = self.failed = 0

    def count(self, tried: int, failed: int, last_reason: str = "") -> None:
        """Add what became of some items.

        Raises:
            TooManyFailuresError: more have failed than are allowed.
        """
        self.tried += tried
        self.failed += failed
        most = self.allowed if self.allowed >= 1 else self.allowed * max(self.tried, JUDGED_AFTER)
        if failed and self.failed > most:
            raise TooManyFailuresError(
                f"{self.failed} of {self.tried} items failed, more than the {self.allowed:g} allowed (max_failures); the last "
                f"one: {last_reason} What was finished is kept: allow more and run it again, then fix the items and complete "
                "the memory (--retry-quarantined); or fix them and begin again in another folder."
            )


def origin_of(space: Space, modality: str, dtype: str) -> Origin:
    """Record what makes rows: the space, and which model in which revision stands behind it."""
    source = getattr(space, "source", None)
    # Where a folder lies differs from machine to machine; the fingerprint knows its weights.
    model = None if source is None else as_id(Path(source).name if Path(source).exists() else str(source))
    facts = {"model": model, "revision": getattr(space, "revision", None), "dtype": dtype}
    return Origin(space=space.name, modality=modality, fingerprint=space.fingerprint, **facts)  # type: ignore[arg-type]


def encoded_with(
    space: Space, modality: str, batches: Iterable[tuple[T, Sequence[Any]]], device: str | None
) -> Generator[tuple[T, EncodedBatch], None, None]:
    """Embed batches as they come, a few being read and decoded ahead: what is known of each, and its contents or result."""
    drawn: deque[T] = deque()

    def contents() -> Iterator[Sequence[Any]]:
        for known, content in batches:
            drawn.append(known)
            yield content

    results = encode_batches_of(space, contents(), modality, device)
    try:
        for encoded in results:
            yield drawn.popleft(), encoded
    finally:
        if isinstance(results, Generator):  # a space of the user's may give any iterator
            results.close()


class ShardEmbedder:
    """Embeds and writes shards by number; ascending numbers cost one walk of the list together.

    Batches never cross the end of a shard, so a shard's rows do not depend on where a run was stopped. A shard is written
    only if its items are those which the run began with. Arguments are as of `cmcr.embed`; what `on_batch` raises stops the
    shard.
    """

    def __init__(
        self,
        space: Space,
        modality: str,
        items: ItemList,
        writer: MemoryWriter,
        batch_size: int,
        device: str | None,
        on_batch: OnBatch = lambda tried, failed, reason: None,
    ) -> None:
        self._space, self._modality, self._items, self._writer = space, modality, items, writer
        self._batch_size, self._device, self._on_batch = batch_size, device, on_batch
        self._walk: Generator[Entry, None, None] | None = None
        self._passed = 0

    def __call__(self, number: int) -> tuple[Shard, str]:
        """Embed and write a shard.

        Returns:
            the shard, and why the last of its items that failed did.

        Raises:
            DimensionError: rows of different widths.
            ResumeError: the list is not the one that the run began with.
            WriteError: no permission, disk full.
        """
        span = self._writer.items_of(number)
        walk = self._walk_from(span.start)
        identities: list[Identity] = []
        rows, kept, lost = list[Tensor](), list[tuple[str, str]](), list[Quarantined]()
        batches = _batches(walk, span, self._batch_size, identities)
        with closing(encoded_with(self._space, self._modality, batches, self._device)) as results:
            for (first, batch), encoded in results:
                failed = [
                    _quarantined(*batch[place], first + place, str(error))
                    for place, error in sorted(encoded.failures.items())
                ]
                lost += failed
                kept += [(one.id, one.source) for place, (one, _) in enumerate(batch) if place not in encoded.failures]
                if len(encoded.rows):
                    rows.append(encoded.rows)
                self._on_batch(len(batch), len(failed), failed[-1].reason if failed else "")
        self._check_list(number, identities, walk)
        self._walk, self._passed = walk, span.stop
        return self._writer.write(number, _joined(rows), kept, lost), lost[-1].reason if lost else ""

    def _walk_from(self, first: int) -> Generator[Entry, None, None]:
        """Continue the walk of the last shard; begin again where that is beyond an item already, or stopped half-way."""
        walk, passed = self._walk, self._passed
        if walk is None or first < passed:
            walk, passed = self._items.walk(), 0
        self._walk = None
        for _ in islice(walk, first - passed):
            pass
        return walk

    def _check_list(self, number: int, identities: Sequence[Identity], walk: Iterator[Entry]) -> None:
        plan = self._writer.plan
        same = digest_of(identities) == plan.digests[number]
        if not same or (number == self._writer.count - 1 and next(walk, None) is not None):
            raise ResumeError(
                f"{self._writer.folder}: the list of items has changed since the run began, in the {len(identities)} items "
                f"after {number * plan.run.shard_items} or behind them. What was finished is kept; restore the list and run it "
                "again, or begin again in another folder. Does the memory lie in its own input?"
            )


def _batches(
    walk: Iterator[Entry], span: range, size: int, identities: list[Identity]
) -> Iterator[tuple[tuple[int, list[_Item]], list[Any]]]:
    """Cut the items of a shard into batches, and note what identifies them."""
    first = span.start
    while first < span.stop:
        batch, held = list[_Item](), 0
        for entry in islice(walk, min(size, span.stop - first)):
            identities.append((entry.id, entry.mark))
            batch.append((entry, content := entry.read()))  # a tar file is read in one direction
            held += len(content) if isinstance(content, bytes | NamedBytes) else 0
            if held > _BATCH_BYTES:
                break
        if not batch:
            return
        yield (first, batch), [content for _, content in batch]
        first += len(batch)


def _quarantined(entry: Entry, content: Any, position: int, reason: str) -> Quarantined:
    """Note why an item failed, without the path of this machine: the same wherever the input lies."""
    if isinstance(content, Path):
        reason = reason.replace(str(content), entry.source)
    return Quarantined(id=entry.id, source=entry.source, position=position, reason=reason)


def _joined(rows: list[Tensor]) -> Tensor:
    """Join the rows of a shard. Without any it has no width: what a space knows of its own may depend on what ran before."""
    widths = {part.shape[1] for part in rows}
    if len(widths) > 1:
        raise DimensionError(f"the rows of one shard have widths of {' and '.join(map(str, sorted(widths)))}.")
    return torch.cat(rows) if rows else torch.empty(0, 0)

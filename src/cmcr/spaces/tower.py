"""One modality of a space, and the loop that embeds items with it: the same for every space."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cmcr.arrays import normalized
from cmcr.data.paths import NamedBytes
from cmcr.engine.device import choose_device
from cmcr.errors import CmcrError, ConfigError, DimensionError, EmbeddingsError, SampleError, unknown_name
from cmcr.progress import tracked
from cmcr.spaces.protocol import BatchEncoder, EncodedBatch, Space

_DECODERS = 2  # threads that decode ahead; files decode outside Python's lock
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Tower:
    """How one modality of a space is embedded.

    Attributes:
        width: width D of the embeddings.
        decode: one input -> what `embed` takes of it, on the CPU; called from other threads; raises `SampleError`.
        embed: decoded items -> `(B, D)` tensor, not normalised. A row may depend on its own item only.
    """

    width: int
    decode: Callable[[Any], Any]
    embed: Callable[[list[Any]], Tensor]


class TowerSpace(ABC):
    """A space made of towers (a `cmcr.spaces.protocol.Space`): `encode`, once for all of them.

    Attributes:
        name: such as "clip".
        widths: width D by modality.
        fingerprint: changes whenever the weights or the preprocessing do.
    """

    name: str
    widths: Mapping[str, int]
    fingerprint: str

    @abstractmethod
    def _place(self, device: torch.device) -> None:
        """Move the networks to a device."""

    @abstractmethod
    def _opened_towers(self) -> AbstractContextManager[Mapping[str, Tower]]:
        """Give the towers of one call; what shall follow the call, such as a warning, happens on leaving."""

    def encode(
        self,
        inputs: Any,
        modality: str,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = True,
    ) -> Any:
        """Embed items of one modality, decoding the next batches while one is embedded.

        Arguments, result and errors: see `cmcr.spaces.protocol.Space.encode`.
        """
        if modality not in self.widths:
            raise unknown_name(f"modality of {self.name}", modality, self.widths)
        items, single = listed(inputs)
        if device is not None:
            self._place(choose_device(device))
        with self._opened_towers() as towers:
            label = f"{self.name} {modality}"
            embeddings = embed_all(towers[modality], items, batch_size, label, show_progress_bar)
        if normalize_embeddings:
            embeddings = normalized(embeddings)
        if single:
            embeddings = embeddings[0]
        return embeddings if convert_to_tensor or not convert_to_numpy else embeddings.cpu().numpy()

    def encode_batches(
        self, batches: Iterable[Sequence[Any]], modality: str, device: str | None = None
    ) -> Iterator[EncodedBatch]:
        """Embed an endless stream of batches, decoding the next ones meanwhile; items that fail stop nothing.

        See `cmcr.spaces.protocol.BatchEncoder`.
        """
        if modality not in self.widths:
            raise unknown_name(f"modality of {self.name}", modality, self.widths)
        if device is not None:
            self._place(choose_device(device))
        with self._opened_towers() as towers:
            yield from _encoded_ahead(towers[modality], batches)


def listed(inputs: Any) -> tuple[Sequence[Any], bool]:
    """Tell a list of items from a single one: a path, string, PIL image, mapping or the bytes of a file is one item.

    Returns:
        The items, and whether it was a single one.

    Raises:
        ConfigError: neither.
    """
    if isinstance(inputs, str | bytes | NamedBytes | os.PathLike | Image.Image | Mapping):
        return [inputs], True
    if isinstance(inputs, Sequence) or (isinstance(inputs, np.ndarray) and inputs.ndim > 0):
        return list(inputs) if isinstance(inputs, np.ndarray) else inputs, False
    raise ConfigError(f"inputs: expected a list of items or a single one, got {type(inputs).__name__}.")


def embed_all(
    tower: Tower, items: Sequence[Any], batch_size: int, label: str, show_progress_bar: bool | None = False
) -> Tensor:
    """Embed items batch after batch.

    Args:
        tower: of their modality.
        items: `n` items.
        batch_size: items per call of `Tower.embed`.
        label: what the progress bar calls it.
        show_progress_bar: see `cmcr.progress.tracked`.

    Returns:
        `(n, D)` float32, not normalised, on the tower's device.

    Raises:
        ConfigError: a wrong batch size.
        SampleError: an item that cannot be decoded, with its position.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size: expected a whole number of at least 1, got {batch_size!r}.")
    starts = range(0, len(items), batch_size)
    parts = []
    batches = (items[start : start + batch_size] for start in starts)
    with torch.no_grad(), closing(decoded_ahead(tower.decode, batches)) as ahead:
        for start, decoded in zip(tracked(starts, label, show_progress_bar), ahead, strict=True):
            for position, item in enumerate(decoded, start):
                if isinstance(item, SampleError):
                    raise SampleError(f"item {position}: {item}") from item
            parts.append(tower.embed(decoded).float())
    return torch.cat(parts) if parts else torch.empty(0, tower.width)


def encode_batches_of(
    space: Space, batches: Iterable[Sequence[Any]], modality: str, device: str | None = None
) -> Iterator[EncodedBatch]:
    """Embed a stream of batches with any space: by its own `encode_batches` if it has one, else by `encode`.

    See `cmcr.spaces.protocol.BatchEncoder`.
    """
    if isinstance(space, BatchEncoder):
        return space.encode_batches(batches, modality, device)

    def embed(items: list[Any]) -> Tensor:
        rows: Tensor = space.encode(
            items, modality, len(items), show_progress_bar=False, convert_to_tensor=True, device=device
        )
        if rows.ndim != 2 or len(rows) != len(items):
            raise DimensionError(f"space {space.name!r} gave rows of shape {tuple(rows.shape)} for {len(items)} items.")
        return rows

    return _encoded_ahead(Tower(space.widths.get(modality, 0), _as_it_is, embed), batches)


def _encoded_ahead(tower: Tower, batches: Iterable[Sequence[Any]]) -> Iterator[EncodedBatch]:
    with closing(decoded_ahead(partial(_decode_anything, tower.decode), batches)) as decoded:
        for batch in decoded:
            with torch.no_grad():
                encoded = _encoded(tower, batch)
            yield encoded


def _as_it_is(item: Any) -> Any:
    return item


def decoded_ahead(decode: Callable[[Any], Any], batches: Iterable[Sequence[Any]]) -> Generator[list[Any]]:
    """Decode batch after batch in threads, a few batches ahead of the one that is asked for.

    Args:
        decode: one item -> what a tower embeds; called from other threads.
        batches: lists of items, drawn in the caller's thread as they are needed.

    Yields:
        each batch decoded, in its order; where an item cannot be decoded, its `SampleError`.
    """
    pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="cmcr-decode")
    waiting: deque[list[Future[list[Any]]]] = deque()
    try:
        for batch in batches:
            share = max(1, -(-len(batch) // _DECODERS))  # all threads decode one batch, so that the first comes soon
            parts = [batch[i : i + share] for i in range(0, len(batch), share)]
            waiting.append([pool.submit(_decode, decode, part) for part in parts])
            if len(waiting) > _BATCHES_AHEAD:
                yield [item for part in waiting.popleft() for item in part.result()]
        while waiting:
            yield [item for part in waiting.popleft() for item in part.result()]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode(decode: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    decoded: list[Any] = []
    for item in items:
        try:
            decoded.append(decode(item))
        except SampleError as error:
            decoded.append(error)
    return decoded


def _decode_anything(decode: Callable[[Any], Any], item: Any) -> Any:
    """Decode an item whose reading may have failed already, or may fail in ways that no reader foresaw."""
    if isinstance(item, SampleError):
        return item
    try:
        return decode(item)
    except CmcrError:  # an item's own error, or one that all items share, such as a missing library
        raise
    except MemoryError:
        raise
    except Exception as error:
        return SampleError(f"cannot be decoded ({type(error).__name__}: {error}).")


def _encoded(tower: Tower, decoded: list[Any]) -> EncodedBatch:
    """Embed what could be decoded of a batch."""
    failures = {place: item for place, item in enumerate(decoded) if isinstance(item, SampleError)}
    places = [place for place in range(len(decoded)) if place not in failures]
    rows, failed = _embedded(tower, [decoded[place] for place in places])
    failures.update({places[position]: error for position, error in failed.items()})
    return EncodedBatch(rows, failures)


def _embedded(tower: Tower, items: list[Any]) -> tuple[Tensor, dict[int, SampleError]]:
    """Embed items; where the network fails, half of them at a time, until those that it fails on are found.

    Returns:
        unit rows of the others, and why the rest has none, by position.
    """
    if not items:
        return torch.empty(0, tower.width), {}
    try:
        rows = tower.embed(items).float().cpu()
    except Exception as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise
        if isinstance(error, CmcrError) and not isinstance(error, SampleError | EmbeddingsError):
            raise  # all items share it, such as a missing library
        if len(items) == 1:
            return torch.empty(0, tower.width), {0: _reason(error)}
        middle = len(items) // 2
        first, failed = _embedded(tower, items[:middle])
        second, also_failed = _embedded(tower, items[middle:])
        failed.update({middle + position: reason for position, reason in also_failed.items()})
        return (torch.cat([first, second]) if len(first) and len(second) else first if len(first) else second), failed
    usable = torch.isfinite(rows).all(dim=1) & (rows != 0).any(dim=1)
    bad = (~usable).nonzero().flatten().tolist()
    return normalized(rows[usable]), {row: SampleError("its embedding is NaN, infinite or zero.") for row in bad}


def _reason(error: Exception) -> SampleError:
    if isinstance(error, SampleError):  # `encode` says at which of its items, here always the first
        return SampleError(str(error).removeprefix("item 0: "))
    return SampleError(f"cannot be embedded ({type(error).__name__}: {error})")

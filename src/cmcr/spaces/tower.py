"""One modality of a space, and the loop that embeds items with it: the same for every space."""

from __future__ import annotations

import os
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cmcr.arrays import check_count, normalized
from cmcr.data.paths import NamedBytes
from cmcr.engine.device import choose_device
from cmcr.errors import (
    CmcrError,
    ConfigError,
    DimensionError,
    EmbeddingsError,
    MissingDependencyError,
    SampleError,
    unknown_name,
)
from cmcr.progress import tracked
from cmcr.spaces.protocol import EncodedBatch, Space

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
    """A space made of towers: `encode` and `encode_batches`, once for all of them.

    Attributes, arguments, results and errors: see `cmcr.spaces.protocol.Space` and `encode_batches_of`.
    """

    name: str
    widths: Mapping[str, int]
    fingerprint: str
    temperature: float | None = None

    def __repr__(self) -> str:
        widths = ", ".join(f"{modality} {width}" for modality, width in self.widths.items())
        return f"{type(self).__name__}({self.name!r}: {widths}; {self.fingerprint})"

    @abstractmethod
    def _move_to(self, device: torch.device) -> None:
        """Move the networks to a device."""

    @abstractmethod
    def _tower(self, modality: str) -> Tower:
        """Return the tower of a modality of `widths`."""

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
        """Embed items of one modality, decoding the next batches while one is embedded."""
        items, single = listed(inputs)
        tower = self._tower_on(device, modality)
        embeddings = embed_all(tower, items, batch_size, f"{self.name} {modality}", show_progress_bar)
        if normalize_embeddings:
            embeddings = normalized(embeddings)
        if single:
            embeddings = embeddings[0]
        return embeddings if convert_to_tensor or not convert_to_numpy else embeddings.cpu().numpy()

    def encode_batches(
        self, batches: Iterable[Sequence[Any]], modality: str, device: str | None = None
    ) -> Iterator[EncodedBatch]:
        """Embed a stream of batches, decoding the next ones meanwhile; failing items do not stop it."""
        yield from _encoded_ahead(self._tower_on(device, modality), batches)

    def _tower_on(self, device: str | None, modality: str) -> Tower:
        if modality not in self.widths:
            raise unknown_name(f"modality of {self.name}", modality, self.widths)
        if device is not None:
            self._move_to(choose_device(device))
        return self._tower(modality)


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
    """Embed items batch after batch; the `label` names the work on the progress bar.

    Returns:
        `(n, D)` float32, not normalised, on the tower's device.

    Raises:
        ConfigError, SampleError: as `cmcr.spaces.protocol.Space.encode`.
    """
    check_count("batch_size", batch_size)
    starts = range(0, len(items), batch_size)
    batches = (items[start : start + batch_size] for start in starts)
    parts = []
    with torch.no_grad(), closing(_decoded_ahead(tower.decode, batches)) as decoded_batches:
        for start, decoded in zip(tracked(starts, label, show_progress_bar), decoded_batches, strict=True):
            for position, item in enumerate(decoded, start):
                if isinstance(item, SampleError):
                    if isinstance(item.__cause__, MissingDependencyError):
                        raise item.__cause__
                    raise SampleError(f"item {position}: {item}") from item
            parts.append(tower.embed(decoded).float())
    return torch.cat(parts) if parts else torch.empty(0, tower.width)


def encode_batches_of(
    space: Space, batches: Iterable[Sequence[Any]], modality: str, device: str | None = None
) -> Iterator[EncodedBatch]:
    """Embed a stream of batches that failing items do not stop: by the space's own `encode_batches`, else by `encode`.

    Args:
        space: all spaces of cmcr have `encode_batches`; a user's own class need not.
        batches: lists of items as `encode` takes them; a `SampleError` in the place of an item is a failure.
        modality: one of the space's `widths`.
        device: where to compute; None leaves the encoder where it is.

    Yields:
        one result for each batch, in order; the next batches are decoded while one is embedded.

    Raises:
        ConfigError: an unknown modality.
        MissingDependencyError: a library is missing that items of this kind need.
    """
    if hasattr(space, "encode_batches"):
        found: Iterator[EncodedBatch] = space.encode_batches(batches, modality, device)
        return found

    def embed(items: list[Any]) -> Tensor:
        rows: Tensor = space.encode(
            items, modality, len(items), show_progress_bar=False, convert_to_tensor=True, device=device
        )
        if rows.ndim != 2 or len(rows) != len(items):
            raise DimensionError(f"space {space.name!r} gave rows of shape {tuple(rows.shape)} for {len(items)} items.")
        return rows

    return _encoded_ahead(Tower(space.widths.get(modality, 0), lambda item: item, embed), batches)


def _decoded_ahead(decode: Callable[[Any], Any], batches: Iterable[Sequence[Any]]) -> Generator[list[Any]]:
    """Decode batch after batch in threads, a few batches ahead of the one that is asked for.

    Yields:
        each batch decoded, in its order; where an item cannot be decoded, its `SampleError`.
    """
    pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="cmcr-decode")
    waiting: deque[list[Any]] = deque()

    def next_decoded() -> list[Any]:
        return [item for part in waiting.popleft() for item in part.result()]

    try:
        for batch in batches:
            share = max(1, -(-len(batch) // _DECODERS))  # all threads share one batch, so that the first is ready soon
            parts = [batch[i : i + share] for i in range(0, len(batch), share)]
            waiting.append([pool.submit(_decoded, decode, part) for part in parts])
            if len(waiting) > _BATCHES_AHEAD:
                yield next_decoded()
        while waiting:
            yield next_decoded()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decoded(decode: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Decode items; of one that cannot be decoded return why, for reading may fail in ways that no reader foresaw."""
    decoded: list[Any] = []
    for item in items:
        try:
            decoded.append(item if isinstance(item, SampleError) else decode(item))
        except SampleError as error:
            decoded.append(_without_values(error))
        except MissingDependencyError as error:  # other items may not need the library
            failure = SampleError(str(error))
            failure.__cause__ = error
            decoded.append(failure)
        except CmcrError:  # one that all items share
            raise
        except Exception as error:  # memory or the stack that one item exhausts among them
            failure = SampleError(f"cannot be decoded ({type(error).__name__}: {error}).")
            failure.__cause__ = error
            decoded.append(_without_values(failure))
    return decoded


def _without_values(failure: SampleError) -> SampleError:
    """Let go of what was being decoded: the errors of a batch would hold as many large arrays."""
    error: BaseException | None = failure
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    return failure


def _encoded_ahead(tower: Tower, batches: Iterable[Sequence[Any]]) -> Iterator[EncodedBatch]:
    with closing(_decoded_ahead(tower.decode, batches)) as decoded_batches:
        for decoded in decoded_batches:
            with torch.no_grad():  # not around the yield: the caller's own work runs there
                encoded = _encoded(tower, decoded)
            yield encoded


def _encoded(tower: Tower, decoded: list[Any]) -> EncodedBatch:
    """Embed what could be decoded of a batch, one item at a time where the network fails on all of them together."""
    failures = {position: item for position, item in enumerate(decoded) if isinstance(item, SampleError)}
    positions = [position for position in range(len(decoded)) if position not in failures]
    items = [decoded[position] for position in positions]
    if not items:
        return EncodedBatch(torch.empty(0, tower.width), failures)
    try:
        rows = tower.embed(items).float().cpu()
    except (MemoryError, torch.OutOfMemoryError, Warning):  # the last where the user makes warnings errors
        raise
    except Exception as error:
        if isinstance(error, CmcrError) and not isinstance(error, SampleError | EmbeddingsError):
            raise  # all items share it, such as a missing library
        if len(items) == 1:
            failure = SampleError(f"cannot be embedded ({type(error).__name__}: {error})")
            if isinstance(error, SampleError):  # `encode` names the position among its items, here always the first
                failure = SampleError(str(error).removeprefix("item 0: "))
            return EncodedBatch(torch.empty(0, tower.width), {**failures, positions[0]: failure})
        alone = [_encoded(tower, [item]) for item in items]
        found = [one.rows for one in alone if len(one.rows)]  # a width that is not known yet cannot be concatenated
        failures |= {position: one.failures[0] for position, one in zip(positions, alone, strict=True) if one.failures}
        return EncodedBatch(torch.cat(found) if found else torch.empty(0, tower.width), failures)
    usable = torch.isfinite(rows).all(dim=1) & (rows != 0).any(dim=1)
    for row in (~usable).nonzero().flatten().tolist():
        failures[positions[row]] = SampleError("its embedding is NaN, infinite or zero.")
    return EncodedBatch(normalized(rows[usable]), failures)

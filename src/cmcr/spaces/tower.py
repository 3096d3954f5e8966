"""One modality of a space, and the loop that embeds items with it: the same for every space."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cmcr.embeddings import choose_device, normalized
from cmcr.errors import ConfigError, SampleError, unknown_name
from cmcr.progress import tracked

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


def listed(inputs: Any) -> tuple[Sequence[Any], bool]:
    """Tell a list of items from a single one: a path, string, PIL image or mapping is one item.

    Returns:
        The items, and whether it was a single one.

    Raises:
        ConfigError: neither.
    """
    if isinstance(inputs, str | os.PathLike | Image.Image | Mapping):
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
    with torch.no_grad(), closing(decoded_ahead(tower.decode, items, batch_size)) as batches:
        for start, decoded in zip(tracked(starts, label, show_progress_bar), batches, strict=True):
            for position, item in enumerate(decoded, start):
                if isinstance(item, SampleError):
                    raise SampleError(f"item {position}: {item}") from item
            parts.append(tower.embed(decoded).float())
    return torch.cat(parts) if parts else torch.empty(0, tower.width)


def decoded_ahead(decode: Callable[[Any], Any], items: Iterable[Any], batch_size: int) -> Generator[list[Any]]:
    """Decode batch after batch in threads, a few batches ahead of the one that is asked for.

    Args:
        decode: one item -> what a tower embeds; called from other threads.
        items: read as they are needed, in the caller's thread.
        batch_size: items a batch.

    Yields:
        lists of up to `batch_size` decoded items in their order; where an item cannot be decoded, its `SampleError`.
    """
    remaining = iter(items)
    pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="cmcr-decode")
    waiting: deque[list[Future[list[Any]]]] = deque()
    try:
        while batch := list(islice(remaining, batch_size)):
            share = -(
                -len(batch) // _DECODERS
            )  # a batch is decoded by all threads at once, so that the first comes soon
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

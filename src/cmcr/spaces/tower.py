"""One modality of a space, and the loop that embeds items with it: the same for every space."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cmcr.embeddings import normalized
from cmcr.errors import ConfigError, SampleError, unknown_name
from cmcr.progress import tracked

_DECODERS = 2  # threads that decode ahead; files decode outside Python's lock


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


def encode(
    towers: Mapping[str, Tower],
    space: str,
    inputs: Any,
    modality: str,
    *,
    batch_size: int = 32,
    show_progress_bar: bool | None = None,
    convert_to_numpy: bool = True,
    convert_to_tensor: bool = False,
    normalize_embeddings: bool = True,
) -> Any:
    """Embed items, decoding the next batches while one is embedded.

    Args:
        towers: by modality.
        space: the space's name, for messages.
        inputs: `n` items; a single path, string, PIL image or mapping counts as one item.
        modality: a key of `towers`.
        batch_size: items per call of `embed`.
        show_progress_bar: None shows one in an interactive terminal if there is much to do.
        convert_to_numpy: return a numpy array.
        convert_to_tensor: return a torch tensor instead.
        normalize_embeddings: scale rows to unit length.

    Returns:
        `(n, D)` float32, or `(D,)` for a single item.

    Raises:
        ConfigError: an unknown modality (the nearest is named) or a wrong batch size.
        SampleError: an item that cannot be decoded, with its position.
    """
    if modality not in towers:
        raise unknown_name(f"modality of {space}", modality, towers)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size: expected a whole number of at least 1, got {batch_size!r}.")
    tower = towers[modality]
    single = isinstance(inputs, str | os.PathLike | Image.Image | Mapping)
    if not single and not (isinstance(inputs, Sequence) or (isinstance(inputs, np.ndarray) and inputs.ndim > 0)):
        raise ConfigError(f"inputs: expected a list of items or a single one, got {type(inputs).__name__}.")
    items: Sequence[Any] = [inputs] if single else inputs
    batches = -(-len(items) // batch_size)
    parts = []
    with torch.no_grad():
        for _, decoded in zip(
            tracked(range(batches), f"{space} {modality}", show_progress_bar),
            _decoded_ahead(tower, items, batch_size),
            strict=True,
        ):
            parts.append(tower.embed(decoded).float())
    embeddings = torch.cat(parts) if parts else torch.empty(0, tower.width)
    if normalize_embeddings:
        embeddings = normalized(embeddings)
    if single:
        embeddings = embeddings[0]
    return embeddings if convert_to_tensor or not convert_to_numpy else embeddings.cpu().numpy()


def _decoded_ahead(tower: Tower, items: Sequence[Any], batch_size: int) -> Iterator[list[Any]]:
    """Decode batch after batch in threads, a few ahead of the one that is asked for."""
    starts = range(0, len(items), batch_size)
    if len(starts) <= 1:
        yield from (_decode(tower, items, start, batch_size) for start in starts)
        return
    pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="cmcr-decode")
    try:
        waiting: deque[Future[list[Any]]] = deque()
        for start in starts:
            waiting.append(pool.submit(_decode, tower, items, start, batch_size))
            if len(waiting) > _DECODERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _decode(tower: Tower, items: Sequence[Any], start: int, batch_size: int) -> list[Any]:
    """Decode one batch, adding the position to the message of an item that fails."""
    decoded = []
    for position in range(start, min(start + batch_size, len(items))):
        try:
            decoded.append(tower.decode(items[position]))
        except SampleError as error:
            raise SampleError(f"item {position}: {error}") from error
    return decoded

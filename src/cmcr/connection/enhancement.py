"""The paper's enhancement of embeddings: semantic consistency across modalities, semantic completion within one.

C-MCR (Wang et al., NeurIPS 2023, arXiv 2305.14381), section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cmcr.embeddings import ArrayT, StoredRows, as_given, check_finite, is_number, rows_of, working_dtype
from cmcr.errors import ConfigError, DimensionError, NonFiniteError

# Blocks of queries x memory whose logits (8 MB in float32) stay in the last-level cache of a common CPU.
_QUERY_BLOCK = 1024
_MEMORY_BLOCK = 2048
_QUERY_BLOCK_OF_STORED = 4096  # rows on disk are read and converted once a block of queries: fewer, larger ones

PUBLISHED_WIDTH = 512
"""The width for which the paper states its noise variance."""


def semantic_consistency(
    queries: ArrayT,
    memory: ArrayT | StoredRows,
    temperature: float = 0.01,
    *,
    normalize: bool = False,
    progress: Callable[[float], None] | None = None,
) -> ArrayT:
    """Give each query its counterpart in the other modality of its own space: a softmax mean over a whole memory.

    ``v_i = sum_k softmax_k(q_i . v_k / temperature) v_k`` (the paper's inter-modality semantic consistency), exact: every
    memory row takes part, there is no top-k. The memory is streamed in blocks with a running maximum and sum, so the
    scratch space is about 20 MB (60 MB for a memory on disk; in float64 twice that) whatever the number of rows, and any
    temperature is stable.

    The paper's similarity is the cosine, so rows are meant to be unit rows; they are used as they come, without scaling.
    Whether the mean is made a unit row again the paper does not say: `normalize` chooses.

    Args:
        queries: `(Q, D)` floating point, numpy or torch. A row of zeros gets the plain mean of the memory.
        memory: `(N, D)` rows of another modality of the same space: an array, of which a read-only memory map will do, or
            a `cmcr.Memory` on disk, which is read once for every 4096 queries and never held. Not copied.
        temperature: the softmax temperature tau_1, above 0; the paper uses 0.01.
        normalize: scale the results to unit rows.
        progress: called with the share done, in (0, 1].

    Returns:
        `(Q, D)` in the kind of `queries` (numpy or torch, same device), float64 if either input is, else float32.

    Raises:
        DtypeError: an input is not floating point.
        DimensionError: an input has not two axes, or the widths differ.
        TooFewRowsError: an input is empty.
        NonFiniteError: NaN or infinity in an input, or rows so long that their products overflow.
        ConfigError: a temperature that is not above 0.
    """
    if not (is_number(temperature) and temperature > 0):
        raise ConfigError(f"temperature: expected a finite number above 0, got {temperature!r}.")
    asked = rows_of(queries, "queries")
    stored = memory if isinstance(memory, StoredRows) else rows_of(memory, "memory")
    if asked.shape[1] != stored.shape[1]:
        raise DimensionError(
            f"queries are {asked.shape[1]} wide and the memory {stored.shape[1]}: both must be embeddings of one space."
        )
    check_finite(asked, "queries")
    if isinstance(stored, Tensor):  # rows on disk were checked when they were written
        check_finite(stored, "memory")
    dtype = working_dtype(asked, stored) if isinstance(stored, Tensor) else working_dtype(asked)
    step = _QUERY_BLOCK if isinstance(stored, Tensor) else _QUERY_BLOCK_OF_STORED
    result = torch.empty(asked.shape, dtype=dtype, device=asked.device)
    # Logits in powers of two: exp2 is several times faster than exp. The bound keeps a tiny temperature from overflowing.
    scale = min(math.log2(math.e) / float(temperature), torch.finfo(dtype).max ** 0.5)
    with torch.no_grad():
        for start in range(0, len(asked), step):
            block = slice(start, min(start + step, len(asked)))
            result[block] = _softmax_mean(asked[block].to(dtype) * scale, stored)
            if progress is not None:
                progress(block.stop / len(asked))
        if not torch.isfinite(result).all():
            raise NonFiniteError("the products of queries and memory overflow: scale the rows to unit length.")
        if normalize:
            result = torch.nn.functional.normalize(result, dim=1)
    return as_given(result, queries)


def _blocks(memory: Tensor | StoredRows) -> Iterator[Tensor]:
    if isinstance(memory, Tensor):
        return (memory[start : start + _MEMORY_BLOCK] for start in range(0, len(memory), _MEMORY_BLOCK))
    return (torch.from_numpy(block) for block in memory.blocks(_MEMORY_BLOCK))


def _softmax_mean(scaled: Tensor, memory: Tensor | StoredRows) -> Tensor:
    """Average the memory with weights proportional to ``2 ** (scaled @ memory.T)``, one block of memory at a time.

    The maximum of the logits met so far is subtracted before the power; when a later block exceeds it, what was summed
    up so far is scaled down (the online softmax of Milakov and Gimelshein, 2018).
    """
    highest = torch.full((len(scaled), 1), -torch.inf, dtype=scaled.dtype, device=scaled.device)
    weight = torch.zeros_like(highest)
    total = torch.zeros_like(scaled)
    room = torch.empty(len(scaled) * min(_MEMORY_BLOCK, len(memory)), dtype=scaled.dtype, device=scaled.device)
    for rows in _blocks(memory):
        block = rows.to(device=scaled.device, dtype=scaled.dtype)
        logits = room[: len(scaled) * len(block)].view(len(scaled), len(block))
        torch.mm(scaled, block.T, out=logits)
        peak = torch.maximum(highest, logits.amax(dim=1, keepdim=True))
        shrink = torch.exp2(highest - peak)
        weights = logits.sub_(peak).exp2_()
        weight.mul_(shrink).add_(weights.sum(dim=1, keepdim=True))
        total.mul_(shrink).addmm_(weights, block)
        highest = peak
    return total.div_(weight)


def semantic_completion(
    embeddings: ArrayT,
    noise_variance: float = 0.004,
    *,
    generator: torch.Generator | None = None,
    rescale: bool = True,
) -> ArrayT:
    """Blur each embedding into a small region of its space: add Gaussian noise and make it a unit row again.

    ``x~ = normalize(x + theta), theta ~ N(0, s^2 I)`` (the paper's intra-modality semantic completion). Training draws it
    anew at every step.

    The paper states ``s^2 = 0.004`` at width 512, where the noise is about 1.4 times as long as the embedding
    (``E|theta|^2 = 512 * 0.004``). The same variance is a smaller angle in a narrower space, so by default it is
    rescaled to ``0.004 * 512 / D``, which keeps the angle.

    Args:
        embeddings: `(n, D)` unit rows, numpy or torch.
        noise_variance: the variance of each coordinate of the noise at width 512, 0 or more.
        generator: source of the noise, on the device of the embeddings; None takes torch's global one.
        rescale: keep the angle of the noise at any width; False takes the variance as it is.

    Returns:
        `(n, D)` unit rows in the kind of `embeddings`; float64 stays float64, everything else becomes float32.

    Raises:
        DtypeError, DimensionError, TooFewRowsError, NonFiniteError: as `semantic_consistency`.
        ConfigError: a variance below 0, or a generator that is not torch's.
    """
    if not (is_number(noise_variance) and noise_variance >= 0):
        raise ConfigError(f"noise_variance: expected a finite number, 0 or more, got {noise_variance!r}.")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ConfigError(f"generator: expected a torch.Generator or None, got {type(generator).__name__}.")
    rows = rows_of(embeddings, "embeddings")
    check_finite(rows, "embeddings")
    clean = rows.to(working_dtype(rows))
    return as_given(complete(clean, noise_deviation(noise_variance, clean.shape[1], rescale), generator), embeddings)


def noise_deviation(noise_variance: float, width: int, rescale: bool = True) -> float:
    """Standard deviation of the noise of one coordinate in a space `width` wide (see `semantic_completion`)."""
    return math.sqrt(noise_variance * (PUBLISHED_WIDTH / width if rescale else 1.0))


def complete(rows: Tensor, deviation: float, generator: torch.Generator | None) -> Tensor:
    """Add noise of a standard deviation to rows `(n, D)` and normalise: the unchecked core of `semantic_completion`."""
    if deviation == 0:
        return torch.nn.functional.normalize(rows, dim=1)
    noise = torch.randn(rows.shape, generator=generator, dtype=rows.dtype, device=rows.device)
    return torch.nn.functional.normalize(noise.mul_(deviation).add_(rows), dim=1)

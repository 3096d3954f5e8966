"""The paper's enhancement of embeddings: semantic consistency across modalities, semantic completion within one.

C-MCR (Wang et al., NeurIPS 2023, arXiv 2305.14381), section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from cmcr.arrays import Array, ArrayT, StoredRows, as_given, check_finite, is_number, rows_of, working_dtype
from cmcr.engine.precision import (
    LOWEST_TEMPERATURE_IN_BFLOAT16,
    Precision,
    check_precision,
    fast_float32,
    guarded_torch_state,
)
from cmcr.engine.streamed_softmax import StreamedSoftmax, queries_at_once, slices, tile_side
from cmcr.errors import ConfigError, DimensionError, DtypeError, NonFiniteError

PUBLISHED_WIDTH = 512
"""The width for which the paper states its noise variance."""


def semantic_consistency(
    queries: ArrayT,
    memory: Array | StoredRows,
    temperature: float = 0.01,
    *,
    normalize: bool = False,
    precision: Precision = "float32",
    device: torch.device | None = None,
    progress: Callable[[float], None] | None = None,
) -> ArrayT:
    """Give each query its counterpart in the other modality of its own space: a softmax mean over a whole memory.

    ``v_i = sum_k softmax_k(q_i . v_k / temperature) v_k`` (the paper's inter-modality semantic consistency), exact: every
    memory row takes part, there is no top-k. The memory is streamed in blocks, so the scratch space on a CPU is about 100 MB
    whatever the number of rows (on a GPU about half a gigabyte), and any temperature is stable.

    The paper's similarity is the cosine, so rows are meant to be unit rows; they are used as they come, without scaling.
    The paper does not say whether the mean is made a unit row again: `normalize` chooses.

    Args:
        queries: `(Q, D)` floating point, numpy or torch. A row of zeros gets the plain mean of the memory.
        memory: `(N, D)` rows of another modality of the same space: an array, of which a read-only memory map will do, or
            a `cmcr.Memory` on disk, which is read once for every 8,192 queries of width 512 and never held. Not copied.
        temperature: the softmax temperature tau_1, above 0; the paper uses 0.01.
        normalize: scale the results to unit rows.
        precision: `"float32"` (float64 where an input is), or `"bfloat16"`: products in bfloat16, sums in float32. Where
            processors multiply bfloat16 it is about twice as fast. For unit rows and a temperature of 0.01, 1 - cos to the
            exact mean is 2.5e-5 on average for random rows 512 wide, single rows 2e-4. It grows as the temperature falls or
            the rows get narrower; temperatures below 0.001 are refused.
        device: where to compute; None is where the queries are.
        progress: called with the share done, in (0, 1].

    Returns:
        `(Q, D)` in the kind of `queries` (numpy or torch, same device), float64 if either input is, else float32.

    Raises:
        DtypeError: an input is not floating point, or float64 on an Apple GPU, which has none.
        DimensionError: an input has not two axes, or the widths differ.
        TooFewRowsError: an input is empty.
        NonFiniteError: NaN or infinity in an input, or rows so long that their products overflow.
        ConfigError: a temperature that is not above 0, or below 0.001 in bfloat16; an unknown precision.
        IntegrityError, ReadError: a memory on disk cannot be read.
    """
    if not (is_number(temperature) and temperature > 0):
        raise ConfigError(f"temperature: expected a finite number above 0, got {temperature!r}.")
    check_precision(precision)
    if precision == "bfloat16" and temperature < LOWEST_TEMPERATURE_IN_BFLOAT16:
        raise ConfigError(
            f"temperature: expected {LOWEST_TEMPERATURE_IN_BFLOAT16} or more in bfloat16, got {temperature!r}. Below it "
            'rounding decides which row is nearest; precision="float32" takes any.'
        )
    asked = rows_of(queries, "queries").detach()
    rows = memory if isinstance(memory, StoredRows) else rows_of(memory, "memory").detach()
    if asked.shape[1] != rows.shape[1]:
        raise DimensionError(
            f"queries are {asked.shape[1]} wide and the memory {rows.shape[1]}: both must be embeddings of one space."
        )
    check_finite(asked, "queries")
    if isinstance(rows, Tensor):
        check_finite(rows, "memory")
    where = device or asked.device
    sums = working_dtype(asked, rows) if isinstance(rows, Tensor) else working_dtype(asked)
    if where.type == "mps" and sums == torch.float64:
        raise DtypeError("queries and memory: expected at most float32 on an Apple GPU, got float64. Convert them.")
    products = torch.bfloat16 if precision == "bfloat16" else sums
    # Beyond this scale the rounding of the cosines, not the temperature, decides which row is nearest.
    scale = min(math.log2(math.e) / float(temperature), 1 / torch.finfo(sums).eps)
    with guarded_torch_state(where), torch.no_grad(), fast_float32():
        result = asked.new_empty(asked.shape, dtype=sums)
        for part in slices(len(asked), queries_at_once(asked.shape[1], where)):
            softmax = StreamedSoftmax(_moved(asked[part], where, sums), scale, products, sums)
            seen = 0
            for block in _blocks(rows, tile_side(where)):
                softmax.add(_moved(block, where, sums))
                seen += len(block)
                if progress is not None:
                    progress((part.start + (part.stop - part.start) * seen / len(rows)) / len(asked))
            means = softmax.means()
            if not torch.isfinite(means).all():
                raise NonFiniteError(
                    "memory: it holds NaN or infinity, or rows so long that their products overflow. Scale the rows to "
                    "unit length; of a memory on disk, look for damage with `cmcr verify`."
                )
            result[part] = F.normalize(means, dim=1) if normalize else means
    return as_given(result, queries)


def _blocks(rows: Tensor | StoredRows, size: int) -> Iterator[Tensor]:
    if isinstance(rows, Tensor):
        return iter(rows.split(size))
    return (torch.from_numpy(block) for block in rows.blocks(size))


def _moved(rows: Tensor, device: torch.device, sums: torch.dtype) -> Tensor:
    """Bring rows to the device, none in a wider dtype than that of the sums: Apple's GPUs have no float64."""
    return rows.to(device, sums if rows.itemsize > sums.itemsize else rows.dtype)


def semantic_completion(
    embeddings: ArrayT,
    noise_variance: float = 0.004,
    *,
    generator: torch.Generator | None = None,
    rescale: bool = True,
) -> ArrayT:
    """Blur each embedding into a small region of its space: add Gaussian noise and make it a unit row again.

    ``x~ = normalize(x + theta), theta ~ N(0, s^2 I)`` (the paper's intra-modality semantic completion). Training draws it
    again at every step.

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
    rows = rows.to(working_dtype(rows))
    if noise_variance > 0:
        deviation = math.sqrt(noise_variance * (PUBLISHED_WIDTH / rows.shape[1] if rescale else 1.0))
        noise = torch.randn(rows.shape, generator=generator, dtype=rows.dtype, device=rows.device)
        rows = noise.mul_(deviation).add_(rows)
    return as_given(F.normalize(rows, dim=1), embeddings)

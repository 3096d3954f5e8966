"""The paper's enhancement of embeddings: semantic consistency across modalities, semantic completion within one.

C-MCR (Wang et al., NeurIPS 2023, arXiv 2305.14381), section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from cmcr.arrays import ArrayT, StoredRows, as_given, check_finite, is_number, rows_of, working_dtype
from cmcr.connection.agreement import failing_together
from cmcr.connection.arguments import check_callable, check_folder, check_kind
from cmcr.connection.checkpoint import open_checkpoint, remove_checkpoint
from cmcr.connection.consistency import SoftmaxMean
from cmcr.connection.peers import Peers
from cmcr.connection.products import Precision
from cmcr.errors import ConfigError

PUBLISHED_WIDTH = 512
"""The width for which the paper states its noise variance."""


def semantic_consistency(
    queries: ArrayT,
    memory: ArrayT | StoredRows,
    temperature: float = 0.01,
    *,
    normalize: bool = False,
    precision: Precision = "float32",
    peers: Peers | None = None,
    checkpoint: str | Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> ArrayT:
    """Give each query its counterpart in the other modality of its own space: a softmax mean over a whole memory.

    ``v_i = sum_k softmax_k(q_i . v_k / temperature) v_k`` (the paper's inter-modality semantic consistency), exact: every
    memory row takes part, there is no top-k. The memory is streamed in blocks, so that the scratch space on a CPU is under
    64 MB whatever the number of rows (on a GPU half a gigabyte), and any temperature is stable.

    The paper's similarity is the cosine, so rows are meant to be unit rows; they are used as they come, without scaling.
    Whether the mean is made a unit row again the paper does not say: `normalize` chooses.

    Args:
        queries: `(Q, D)` floating point, numpy or torch; computed on their device. A row of zeros gets the plain mean of
            the memory.
        memory: `(N, D)` rows of another modality of the same space: an array, of which a read-only memory map will do, or
            a `cmcr.Memory` on disk, which is read once for every 6,000 queries of width 512 (10,000 in bfloat16) and never
            held. Not copied.
        temperature: the softmax temperature tau_1, above 0; the paper uses 0.01.
        normalize: scale the results to unit rows.
        precision: `"float32"` (float64 where an input is), or `"bfloat16"`: products in bfloat16, sums in float32. Where
            processors multiply bfloat16 it is about 1.5 times as fast. For unit rows and a temperature of 0.01, 1 - cos to
            the exact mean is 2e-5 on average for random rows 512 wide, single rows 1e-4; 4e-6 among clusters; 8e-5, single
            rows 1e-3, for random rows 16 wide. It grows as the temperature falls: at 0.001 it is 3e-4 on average, single
            rows 0.01, and 0.1 where they are narrow. Lower temperatures are refused; longer rows act as one.
        peers: the processes that share the memory, each with all queries and its own part of the memory; all get the means
            over the whole. None is this process alone.
        checkpoint: a folder for what is finished, so that the same call goes on where one was stopped; removed at the end.
            Several processes must share it.
        progress: called with the share done, in (0, 1].

    Returns:
        `(Q, D)` in the kind of `queries` (numpy or torch, same device), float64 if either input is, else float32.

    Raises:
        DtypeError: an input is not floating point, or float64 where queries are on an Apple GPU, which has none.
        DimensionError: an input has not two axes, or the widths differ.
        TooFewRowsError: an input is empty.
        NonFiniteError: NaN or infinity in an input, or rows so long that their products overflow.
        ConfigError: a temperature that is not above 0, or below 0.001 in bfloat16; an unknown precision, or an argument of
            another kind.
        LockedError, ResumeError, FormatError, IntegrityError, WriteError: the checkpoint cannot be gone on with.
        IntegrityError, ReadError: a memory on disk cannot be read.
        WorkerError: another of several processes has failed; its own message says why.
    """
    check_folder("checkpoint", checkpoint)
    check_callable("progress", progress)
    check_kind("peers", peers, Peers, "cmcr.connection.peers.Peers")
    together = peers or Peers()
    with failing_together(together, queries.device if isinstance(queries, Tensor) else "cpu"):
        mean = SoftmaxMean.of(queries, memory, temperature, normalize=normalize, precision=precision)
    result = mean.queries.new_empty(mean.queries.shape, dtype=mean.tiling.sums)
    if checkpoint is None:
        mean.fill(result, together, progress)
        return as_given(result, queries)
    with ExitStack() as held:
        with failing_together(together, mean.device):
            kept = held.enter_context(open_checkpoint(Path(checkpoint), together))
        identity = mean.identity(together)
        with failing_together(together, mean.device):
            kept.begin(identity, {})
        mean.fill(result, together, progress, kept)
    with failing_together(together, mean.device):  # the next call may be of the same folder
        if together.rank == 0:
            remove_checkpoint(checkpoint)
    return as_given(result, queries)


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

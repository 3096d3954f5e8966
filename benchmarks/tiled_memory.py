"""Approximate semantic consistency over a large memory: tiles of similar rows, only some of them read in full.

The memory is sorted once into tiles by k-means. A query reads in full the tiles that matter and takes 16 random rows for
each other tile, weighted as the whole tile (a stratified sample). Which tiles matter follows from the variance that
sampling them would add: it is estimated for every tile from its mean and its variance along each axis, and tiles are
read, the worst first, until the rest adds less than a tolerance. Where the softmax has no structure to use, nearly all
tiles are read: then this is slow. The tolerance steers an estimate and bounds nothing: compare a sample of queries with
`semantic_consistency`.

A candidate that was left out of the package: docs/speed.md says why. `approximate.py` measures it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cmcr.arrays import Array, ArrayT, as_given, check_count, check_finite, is_number, rows_of
from cmcr.connection.enhancement import semantic_consistency
from cmcr.errors import ConfigError, DimensionError

_SAMPLES = 16  # rows that stand for a tile that is not read
_ROUND = 256  # tiles are filled up with zero rows to few different sizes: each new shape of a product costs 1-2 ms
_EXTRA = 32  # further columns: the first of them subtracts the expected maximum and sums the weights; 32 align the rows
_QUERY_BLOCK = 8192
_CHUNK = 512  # queries whose weights of all sampled rows are held at once (32 MB with 2048 tiles)
_READ = 65_536  # rows converted at once
_ROUNDS_OF_KMEANS = 5


@dataclass(frozen=True)
class TiledMemory:
    """A memory sorted into tiles, for `approximate_consistency`. T tiles, about 1 KB a row at width 512.

    Attributes:
        mean: `(D,)` float32, the mean of the memory, which is taken off all rows.
        rows: `(R, D + 32)` bfloat16, tile after tile, filled up with zero rows; column D is 1 in true rows.
        starts: where each tile begins in `rows`, and the end: T + 1 numbers.
        counts: `(T,)` float32, the number of true rows of each tile, at least 1.
        centres: `(T, D)` float32, the mean of each tile.
        variances: `(T, D)` float32, the variance of each tile along each axis.
        samples: `(16 T, D + 32)` bfloat16, random rows of each tile, with replacement.
    """

    mean: Tensor
    rows: Tensor
    starts: list[int]
    counts: Tensor
    centres: Tensor
    variances: Tensor
    samples: Tensor


def tile_memory(memory: Array, tiles: int = 2048, *, seed: int = 0) -> TiledMemory:
    """Sort a memory into tiles of similar rows, once for any number of queries.

    Args:
        memory: `(N, D)` floating point, numpy or torch; unit rows. Read twice, not changed.
        tiles: the most tiles to make; 2048 suits a million rows.
        seed: of k-means and of the sampled rows.

    Raises:
        DtypeError, DimensionError, TooFewRowsError, NonFiniteError: as `semantic_consistency`.
        ConfigError: `tiles` is not a whole number of at least 1.
    """
    check_count("tiles", tiles)
    given = rows_of(memory, "memory").detach().cpu()
    check_finite(given, "memory")
    generator = torch.Generator().manual_seed(seed)
    mean = torch.stack([part.double().sum(dim=0) for part in given.split(_READ)]).sum(dim=0).div(len(given)).float()
    means = _kmeans(given, mean, min(tiles, len(given)), generator)
    tile = torch.cat([_nearest(part.float() - mean, means) for part in given.split(_READ)])
    used, tile = tile.unique(return_inverse=True)  # sorted, and without empty tiles
    counts = torch.bincount(tile, minlength=len(used))
    return _filled(given, mean, tile, counts, generator)


def _kmeans(memory: Tensor, mean: Tensor, tiles: int, generator: torch.Generator) -> Tensor:
    sample = memory[torch.randperm(len(memory), generator=generator)[: 32 * tiles]].float() - mean
    means = sample[:tiles].clone()
    for _ in range(_ROUNDS_OF_KMEANS):
        tile = _nearest(sample, means)
        counts = torch.bincount(tile, minlength=tiles)[:, None]
        sums = torch.zeros_like(means).index_add_(0, tile, sample)
        means = torch.where(counts > 0, sums / counts.clamp_min(1), means)
    return means


def _nearest(rows: Tensor, means: Tensor) -> Tensor:
    short, half = means.bfloat16().T, means.square().sum(dim=1) / 2
    return torch.cat([((part.bfloat16() @ short).float() - half).argmax(dim=1) for part in rows.split(8192)])


def _filled(memory: Tensor, mean: Tensor, tile: Tensor, counts: Tensor, generator: torch.Generator) -> TiledMemory:
    width = memory.shape[1]
    room = (counts + _ROUND - 1) // _ROUND * _ROUND
    starts = torch.cat([torch.zeros(1, dtype=torch.long), room.cumsum(0)])
    order = tile.argsort(stable=True)
    first = counts.cumsum(0) - counts
    rows = torch.zeros(int(starts[-1]), width + _EXTRA, dtype=torch.bfloat16)
    centres, squares = torch.zeros(len(counts), width), torch.zeros(len(counts), width)
    for begin in range(0, len(order), _READ):
        part = order[begin : begin + _READ]
        its, values = tile[part], memory[part].float() - mean
        place = torch.arange(begin, begin + len(part)) - first[its] + starts[its]
        rows[place, :width] = values.bfloat16()
        rows[place, width] = 1
        centres.index_add_(0, its, values)
        squares.index_add_(0, its, values.square())
    many = counts.float()
    centres /= many[:, None]
    variances = (squares / many[:, None] - centres.square()).clamp_min(0)
    drawn = (torch.rand(len(counts), _SAMPLES, generator=generator) * many[:, None]).long()
    drawn = torch.minimum(drawn, counts[:, None] - 1) + starts[:-1, None]
    return TiledMemory(mean, rows, starts.tolist(), many, centres, variances, rows[drawn.flatten()])


def approximate_consistency(
    queries: ArrayT,
    memory: TiledMemory,
    temperature: float = 0.01,
    *,
    tolerance: float = 2e-3,
    normalize: bool = False,
) -> ArrayT:
    """Give each query about what `semantic_consistency` gives it, from the tiles of the memory that matter.

    Args:
        queries: `(Q, D)` floating point, numpy or torch; unit rows. Thousands at once share the reading of a tile.
        memory: what `tile_memory` made.
        temperature: as `semantic_consistency`, at least 0.005: weights are computed in bfloat16.
        tolerance: the estimated variance that sampling may add, as a share of the squared length of a unit row; above 0.
        normalize: scale the results to unit rows.

    Returns:
        `(Q, D)` float32 in the kind of `queries`.

    Raises:
        DtypeError, DimensionError, TooFewRowsError, NonFiniteError: as `semantic_consistency`.
        ConfigError: a temperature below 0.005 or a tolerance that is not above 0.
    """
    if not (is_number(temperature) and temperature >= 0.005):
        raise ConfigError(f"temperature: expected at least 0.005, got {temperature!r}. Use semantic_consistency.")
    if not (is_number(tolerance) and tolerance > 0):
        raise ConfigError(f"tolerance: expected a finite number above 0, got {tolerance!r}.")
    asked = rows_of(queries, "queries")
    if asked.shape[1] != len(memory.mean):
        raise DimensionError(
            f"queries are {asked.shape[1]} wide and the memory {len(memory.mean)}: expected one space."
        )
    check_finite(asked, "queries")
    with torch.no_grad():
        parts = [_block(part.cpu().float(), memory, temperature, tolerance) for part in asked.split(_QUERY_BLOCK)]
        result = torch.cat(parts).to(asked.device)
        if normalize:
            result = torch.nn.functional.normalize(result, dim=1)
    return as_given(result, queries)


def _block(queries: Tensor, memory: TiledMemory, temperature: float, tolerance: float) -> Tensor:
    width = queries.shape[1]
    chosen = [_tiles_to_read(part, memory, temperature, tolerance) for part in queries.split(1024)]
    read, highest = torch.cat([c[0] for c in chosen]), torch.cat([c[1] for c in chosen])
    # The last row is no query: lists of queries are filled up with it.
    scaled = torch.zeros(len(queries) + 1, width + _EXTRA, dtype=torch.bfloat16)
    scaled[:-1, :width] = queries * (math.log2(math.e) / temperature)
    scaled[:-1, width] = -highest * math.log2(math.e)
    total = torch.zeros(scaled.shape)
    _add_samples(total, scaled, memory, read)
    _add_tiles(total, scaled, memory, read)
    result = total[:-1, :width] / total[:-1, width, None] + memory.mean
    lost = ~torch.isfinite(result).all(
        dim=1
    )  # the maximum was far from the expected one: too large or too small for exp2
    if lost.any():
        true = memory.rows[memory.rows[:, width] == 1, :width]
        result[lost] = semantic_consistency(queries[lost], true, temperature) + memory.mean
    return result


def _tiles_to_read(queries: Tensor, memory: TiledMemory, temperature: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """Tell which tiles each query reads `(q, T)`, and the logarithm of the largest expected sum of a tile `(q,)`."""
    centre = queries @ memory.centres.T / temperature
    spread = (queries.square() @ memory.variances.T).clamp_min(0).sqrt() / temperature
    sums = centre + _log_sum(memory.counts, spread)
    squares = 2 * centre + _log_sum(memory.counts, 2 * spread)
    # A sample of s of n rows has about n / s times the sum of the squared weights as its variance.
    added = (squares + (memory.counts / _SAMPLES).log() - 2 * sums.logsumexp(dim=1, keepdim=True)).exp_()
    ordered = added.sort(dim=1).values
    sampled = (ordered.cumsum(dim=1) <= tolerance).sum(dim=1, keepdim=True)
    ordered = torch.cat([ordered, torch.full((len(queries), 1), torch.inf)], dim=1)
    return added >= ordered.gather(1, sampled), sums.amax(dim=1)


def _log_sum(counts: Tensor, spread: Tensor) -> Tensor:
    """Expect the logarithm of the sum of a tile's n exponentials of Gaussian numbers of a given deviation.

    Up to a deviation of sqrt(2 log N) it is that of the mean; beyond, the largest of all N rows decides (the random
    energy model, Derrida 1981). N and not n: which of many like tiles holds that row is not known.
    """
    limit = float((2 * counts.sum().log()).sqrt())
    beyond = spread * limit - limit**2 / 2
    return counts.log() + torch.where(spread < limit, spread.square() / 2, beyond)


def _add_samples(total: Tensor, scaled: Tensor, memory: TiledMemory, read: Tensor) -> None:
    for start in range(0, len(read), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(read)))
        weights = (scaled[part] @ memory.samples.T).exp2_()
        stands_for = (~read[part] * (memory.counts / _SAMPLES)).bfloat16()
        weights.view(len(weights), -1, _SAMPLES).mul_(stands_for[:, :, None])
        total[part] += weights @ memory.samples


def _add_tiles(total: Tensor, scaled: Tensor, memory: TiledMemory, read: Tensor) -> None:
    for tile, readers in enumerate(read.T.contiguous()):
        some = readers.nonzero().squeeze(1)
        if len(some) == 0:
            continue
        some = torch.cat([some, some.new_full((_filled_up(len(some)) - len(some),), len(read))])
        rows = memory.rows[memory.starts[tile] : memory.starts[tile + 1]]
        weights = (scaled[some] @ rows.T).exp2_()
        total.index_copy_(0, some, total[some].add_(weights @ rows))


def _filled_up(count: int) -> int:
    """Round a number of queries up to one of few sizes (see `_ROUND`)."""
    step = 32 if count <= 256 else 128 if count <= 2048 else 512
    return -(-count // step) * step

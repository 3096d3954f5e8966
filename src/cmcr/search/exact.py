"""Exact search over memories in place: products of blocks of rows, and the k best so far; ties are decided in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcr.arrays import check_count, check_finite, normalized, rows_of
from cmcr.errors import ConfigError, DimensionError
from cmcr.memories.memory import Memory
from cmcr.search.index import Found

_Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]  # query, position, score
_NONE: _Pairs = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))

_BLOCK_ROWS = 2048  # the scores of a block stay in the cache of a core
_QUERIES = 256  # compared in one walk over the rows
_PAIRS = 2**16  # kept before they are put in order
_PAIRS_AT_ONCE = 512  # of rows and queries in float64
_DENSE = 0.5  # share of rows allowed from which copying them costs more than comparing with all


class ExactIndex:
    """The rows of a memory where they are, compared with every query.

    Shards are mapped at the first search and stay so; nothing is copied but what is kept in float16 or bfloat16, a block at a
    time, and rows that a filter has left over. A search takes some 50 MB of RAM, and 400 bytes for each of `Q x k` results,
    whatever the number of rows; pages of mapped files are the system's, which takes them back when others need them.

    Scores are float32, off by less than `2 (D + E) 2^-24` of the lengths that are multiplied. Rows whose scores are nearer than
    that to each other are compared in float64, rounded to float32: equal scores are those that are equal then, whatever the
    blocks and the filter. In the worst case, all rows being equal, each is compared once more.

    Rows in float16 and bfloat16 are scaled to length one as they are read, as everywhere in cmcr: their scores are cosines.

    Args:
        memory: rows, `(N, D)`.
        extras: `(N, E)` float32 extra coordinates; None for none.
        order: `(N,)` whole numbers by which equal scores are ordered; None orders them by position.
        live: `(N,)` which rows can be found; None for all.

    Attributes:
        kind, exact, width: as of `Index`.
        memory, extras, order, live: as given.
        rounding: how much a score may be off, of the query's length.

    Raises:
        DimensionError: extras, order or live are not as many as the rows.
        NonFiniteError: extras that are.
    """

    kind = "exact"
    exact = True

    def __init__(
        self,
        memory: Memory,
        extras: NDArray[np.float32] | None = None,
        order: NDArray[np.integer] | None = None,
        live: NDArray[np.bool_] | None = None,
    ) -> None:
        rows, self._depth = memory.shape
        self.memory = memory
        self.extras = np.zeros((rows, 0), dtype=np.float32) if extras is None else extras
        self.order = np.arange(rows, dtype=np.int32) if order is None else order
        self.live = np.ones(rows, dtype=np.bool_) if live is None else live
        if self.extras.ndim != 2 or not len(self.extras) == len(self.order) == len(self.live) == rows:
            raise DimensionError(
                f"expected extra coordinates, an order and a mask for {rows} rows, got {self.extras.shape}, "
                f"{self.order.shape} and {self.live.shape}."
            )
        if self.extras.size:
            check_finite(torch.from_numpy(self.extras), "the extra coordinates")
        self.width = self._depth + self.extras.shape[1]
        self._all_live = bool(self.live.all())
        longest = np.sqrt(1.01 + np.einsum("ne,ne->n", self.extras, self.extras).max(initial=0))  # rows have length one
        self._converts = any(one.origin.dtype != "float32" for one in memory.contents)
        self._rescale = self._converts and not memory.as_written
        sums = 2 if self._rescale else 1  # the lengths of rows are sums too
        self.rounding = float(longest * sums * (self.width + 4) * 2.0**-24)

    def __len__(self) -> int:
        return len(self.order)

    def search(self, queries: NDArray[np.float32], k: int, *, allowed: NDArray[np.bool_] | None = None) -> Found:
        """Find the rows with the largest inner products; see `Index.search`.

        Raises:
            ConfigError: k is not a whole number of at least 1, or `allowed` is not a mask of the rows.
            DimensionError, DtypeError, NonFiniteError: queries that cannot be compared.
        """
        given = self.checked(queries, k)
        if allowed is not None and (allowed.dtype != np.bool_ or allowed.shape != self.live.shape):
            raise ConfigError(f"allowed: expected a mask {self.live.shape}, got {allowed.dtype} {allowed.shape}.")
        mask = allowed & self.live if allowed is not None else None if self._all_live else self.live
        if len(given) <= _QUERIES:
            return self._search(given, k, mask)
        parts = [self._search(given[start : start + _QUERIES], k, mask) for start in range(0, len(given), _QUERIES)]
        return np.concatenate([scores for scores, _ in parts]), np.concatenate([positions for _, positions in parts])

    def checked(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        """Make sure that queries can be compared, as contiguous float32; raises as `search`."""
        check_count("k", k)
        if not (isinstance(queries, np.ndarray) and queries.dtype == np.float32 and queries.ndim == 2):
            queries = rows_of(queries, "the queries", at_least=0).float().numpy()
        if queries.shape[1] != self.width:
            raise DimensionError(
                f"the queries: expected width {self.width} ({self._depth} and {self.width - self._depth} extra coordinates), "
                f"got {queries.shape[1]}."
            )
        if not np.isfinite(queries).all():
            check_finite(torch.from_numpy(queries), "the queries")
        return np.ascontiguousarray(queries)

    def best_of(self, queries: NDArray[np.float32], candidates: NDArray[np.int64], k: int) -> Found:
        """Compare each query, checked, with at least k candidates of its own: `(Q, c)` positions, those below 0 are none."""
        query, place = np.nonzero(candidates >= 0)
        positions = candidates[query, place]
        best = _Best(self, queries, k, rounding=0.0)
        best.take(query, positions, self.scores_of(queries, query, positions))
        return best.found()

    def coordinates(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read rows as they are compared, `(n, D + E)`."""
        rows = self._at(positions).float()
        return np.concatenate([normalized(rows) if self._rescale else rows, self.extras[positions]], axis=1)

    def scores_of(
        self, queries: NDArray[np.float32], query: NDArray[np.int64], positions: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Compare pairs of a query and a row in float64: `(P,)`, rounded to float32."""
        scores = np.empty(len(positions), dtype=np.float32)
        for start in range(0, len(positions), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            rows, asked = self._at(positions[part]).double(), queries[query[part]].astype(np.float64)
            rows = normalized(rows) if self._rescale else rows
            products = np.einsum("pd,pd->p", rows.numpy(), asked[:, : self._depth])
            if self.extras.shape[1]:
                products += np.einsum("pe,pe->p", self.extras[positions[part]], asked[:, self._depth :])
            scores[part] = products
        return scores

    def _search(self, queries: NDArray[np.float32], k: int, mask: NDArray[np.bool_] | None) -> Found:
        best = _Best(self, queries, k, self.rounding)
        columns, extra = queries[:, : self._depth].T, queries[:, self._depth :].T
        walk: Iterator[tuple[slice | NDArray[np.int64], NDArray[np.float32]]] = self._blocks()
        if mask is not None and np.count_nonzero(mask) < _DENSE * len(mask):
            walk, mask = self._gathered(mask), None
        for positions, rows in walk:
            scores = rows @ columns
            if self._rescale:  # the scores, which are fewer than the numbers of the rows
                scores /= np.sqrt(np.einsum("nd,nd->n", rows, rows))[:, None]
            if extra.size and extra.any():
                scores += self.extras[positions] @ extra
            if mask is not None:
                scores[~mask[positions]] = -np.inf
            best.add(positions, scores)
        return best.found()

    def _blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Walk all rows in their order, as they are kept; a block is overwritten by the next where it is converted."""
        first, converted = 0, torch.empty((_BLOCK_ROWS if self._converts else 0, self._depth))
        for shard in self._shards:
            for rows in shard.split(_BLOCK_ROWS):
                block = rows if rows.dtype == torch.float32 else converted[: len(rows)].copy_(rows)
                yield slice(first, first + len(rows)), block.numpy()
                first += len(rows)

    def _gathered(self, mask: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Walk the rows of a mask, as they are kept."""
        chosen = mask.nonzero()[0]
        for start in range(0, len(chosen), _BLOCK_ROWS):
            positions = chosen[start : start + _BLOCK_ROWS]
            yield positions, self._at(positions).float().numpy()

    def _at(self, positions: NDArray[np.int64]) -> Tensor:
        if len(self._shards) == 1:  # several times as fast, which counts where there are few rows
            return self._shards[0].index_select(0, torch.from_numpy(positions))
        return torch.from_numpy(self.memory[positions])

    @property
    def _shards(self) -> Sequence[Tensor]:
        self.memory.still_whole()
        return self._mapped

    @cached_property
    def _mapped(self) -> Sequence[Tensor]:
        return list(self.memory.mapped())


class _Best:
    """The k best rows of each query so far, and others that may be; scores may be off by `rounding` of a query's length."""

    def __init__(self, index: ExactIndex, queries: NDArray[np.float32], k: int, rounding: float) -> None:
        self._index, self._queries, self._k = index, queries, k
        lengths = np.sqrt(np.einsum("qd,qd->q", queries, queries))
        self._slack = 2 * rounding * lengths  # two scores further apart than this are in their true order
        self._floor = np.full(len(queries), -np.inf, dtype=np.float32)  # what is not above it is none of the k best
        self._parts: list[_Pairs] = []
        self._pairs = 0

    def add(self, positions: slice | NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Compare with more rows: their positions, and scores `(n, Q)`, -inf for those that do not count."""
        if not self._parts and len(scores) > self._k:
            self._lift(_about_kth(scores, self._k))
        above = np.flatnonzero(scores > self._floor)  # several times as fast as the positions on two axes
        if len(above):
            place, query = np.divmod(above, scores.shape[1])
            found = place + positions.start if isinstance(positions, slice) else positions[place]
            self.take(query, found, scores[place, query])

    def take(self, query: NDArray[np.int64], positions: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        """Keep pairs of a query and a row."""
        self._parts.append((query, positions, scores))
        self._pairs += len(query)
        if self._pairs > _PAIRS + 4 * self._k * len(self._queries):
            self._settle()

    def found(self) -> Found:
        """Give the best, best first."""
        self._settle()
        _, positions, scores = self._parts[0]
        shape = (len(self._queries), len(positions) // max(1, len(self._queries)))
        return scores.reshape(shape), positions.reshape(shape)

    def _settle(self) -> None:
        """Put what there is in order, and keep k a query."""
        query, positions, scores = (np.concatenate(part) for part in zip(*(self._parts or [_NONE]), strict=True))
        query, positions, scores = _chosen((query, positions, scores), np.lexsort((-scores, query)))
        last = _ranks(query) == self._k - 1
        if last.any():
            kth = np.full_like(self._floor, -np.inf)
            kth[query[last]] = scores[last]
            self._lift(kth)
            query, positions, scores = _chosen((query, positions, scores), scores > self._floor[query])
        near = (query[1:] == query[:-1]) & (scores[:-1] - scores[1:] <= self._slack[query[1:]])
        if near.any():
            # They stay among themselves, in the places that they have: others are further away.
            close = np.flatnonzero(np.append(near, False) | np.append(False, near))
            asked, places = query[close], positions[close]
            exact = self._index.scores_of(self._queries, asked, places)
            order = np.lexsort((places, self._index.order[places], -exact, asked))
            positions[close], scores[close] = places[order], exact[order]
        self._parts = [_chosen((query, positions, scores), _ranks(query) < self._k)]
        self._pairs = len(self._parts[0][0])

    def _lift(self, scores: NDArray[np.float32]) -> None:
        """Raise the floor below these scores, of the k-th row each."""
        below = np.nextafter(scores - self._slack, -np.inf, dtype=np.float32)
        self._floor = np.maximum(self._floor, below)


def _chosen(pairs: _Pairs, which: NDArray[np.int64] | NDArray[np.bool_]) -> _Pairs:
    return pairs[0][which], pairs[1][which], pairs[2][which]


def _about_kth(scores: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Find a score of each query `(Q,)`, of `(n, Q)`, that at least k rows reach, not many more."""
    # The largest of each of some groups of rows: k of them are k rows. Far faster than to part all rows.
    groups = min(len(scores), 4 * k)
    largest = scores[: len(scores) // groups * groups].reshape(-1, groups * scores.shape[1]).max(axis=0)
    return np.partition(largest.reshape(groups, -1), -k, axis=0)[-k]


def _ranks(query: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count, in pairs sorted by query, how many of the same query come before each."""
    return np.arange(len(query)) - np.searchsorted(query, query)

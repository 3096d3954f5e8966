"""Retrieval and classification: one pass gives the ranks of all positives, every metric is a small function of them.

Tie rule, for every metric here: of equally similar items, those that are not positives come first. So a model that cannot
tell items apart gains nothing, no other way of breaking ties gives a lower figure, and the order of the corpus does not
matter. "Equally" means up to rounding: about 1e-6 for unit rows in float32, 2e-15 in float64.

Metrics return one value per query, because intervals and paired tests need them; the figure to report is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom
from torch import Tensor

from cmcr.arrays import Array, check_finite, rows_of, working_dtype
from cmcr.errors import DimensionError, DtypeError, NonFiniteError, TooFewRowsError

_ELEMENTS = 1 << 22  # similarities held at once: 16 MiB in float32; what is made of them takes as much again
_QUERIES = 1024  # a larger block multiplies no faster
_ROUNDING = 8  # units of rounding by which two computations of one inner product may differ


@dataclass(frozen=True, eq=False)
class PerQuery:
    """Integers that belong to queries, at least one to each: corpus rows of positives, or their ranks.

    A query without positives has no recall, precision or rank. It is refused, because a mean over whichever queries are
    left could not be compared with other figures: leave such queries out before, and report how many.

    Attributes:
        values: `(P,)` the first query's numbers, then the second's, and so on.
        starts: `(Q + 1,)` query `i` owns `values[starts[i] : starts[i + 1]]`.

    Raises:
        TooFewRowsError: a query without any, or no query at all.
        DimensionError: starts that do not cut the values into queries.
        DtypeError: values that are not integers.
    """

    values: NDArray[np.integer]
    starts: NDArray[np.integer]

    def __post_init__(self) -> None:
        if len(self) < 1:
            raise TooFewRowsError("expected at least one rank or positive, got none: there are no queries.")
        if self.values.ndim != 1 or self.starts[0] != 0 or self.starts[-1] != len(self.values):
            raise DimensionError(
                f"expected values (P,) and starts (Q + 1,) from 0 to P, got values {self.values.shape} and starts from "
                f"{self.starts[0]} to {self.starts[-1]}."
            )
        if (self.counts < 1).any():
            raise TooFewRowsError(
                f"{int((self.counts < 1).sum())} of {len(self)} queries have no positive, the first is query "
                f"{int(np.argmax(self.counts < 1))}. Leave them out, and report how many."
            )
        if self.values.dtype.kind not in "iu":
            raise DtypeError(f"expected integers, got {self.values.dtype}.")

    def __len__(self) -> int:
        """Return the number of queries."""
        return len(self.starts) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many numbers each query owns, `(Q,)`."""
        return np.diff(self.starts)

    @classmethod
    def one(cls, values: NDArray[np.integer]) -> PerQuery:
        """Give each query one number, `(Q,)`: a paired item, a class, or the rank of the only positive."""
        return cls(np.asarray(values), np.arange(len(values) + 1))

    @classmethod
    def several(cls, lists: Sequence[ArrayLike]) -> PerQuery:
        """Give query `i` the numbers of `lists[i]`, such as the five captions of picture `i`."""
        arrays = [np.asarray(numbers) for numbers in lists]
        filled = [array for array in arrays if array.size]  # an empty list would make the others floating point
        values = np.concatenate(filled) if filled else np.zeros(0, dtype=np.int64)
        return cls(values, np.cumsum([0, *(array.size for array in arrays)]))


def positive_ranks(queries: Array, corpus: Array, positives: PerQuery) -> PerQuery:
    """Rank every positive of every query among the whole corpus by inner product: by cosine, for unit rows.

    With the positives of a query sorted by similarity, the rank of the j-th is `j` plus the number of other items at
    least as similar. Ranks of one query are therefore distinct, also among equal positives.

    Args:
        queries: `(Q, K)` rows.
        corpus: `(C, K)` rows.
        positives: corpus rows of each query's positives, in any order.

    Returns:
        Ranks from 1, rising within each query. A few queries are compared at a time, so that scratch memory stays under
        64 MiB, or two rows of the corpus's length where that is more.

    Raises:
        DtypeError, TooFewRowsError: no floating-point rows.
        DimensionError: widths or lengths that do not match, a positive outside the corpus or named twice.
        NonFiniteError: NaN or infinity, or rows so long that their inner products overflow.
    """
    q, c = _comparable(queries, corpus)
    if len(positives) != len(q):
        raise DimensionError(f"expected positives of {len(q)} queries, got those of {len(positives)}.")
    rows = torch.from_numpy(positives.values.astype(np.int64))
    if not (int(rows.min()) >= 0 and int(rows.max()) < len(c)):
        raise DimensionError(
            f"positives must be corpus rows 0..{len(c) - 1}, got {int(rows.min())}..{int(rows.max())}."
        )
    starts, counts = positives.starts, torch.from_numpy(positives.counts).to(q.device)
    corpus_lengths = torch.linalg.vector_norm(c, dim=1)
    size = max(1, min(_QUERIES, _ELEMENTS // len(c)))
    found = []
    for start in range(0, len(q), size):
        block = slice(start, min(start + size, len(q)))
        mine = rows[starts[block.start] : starts[block.stop]].to(q.device)
        lengths = torch.linalg.vector_norm(q[block], dim=1).repeat_interleave(counts[block]) * corpus_lengths[mine]
        # A matrix product may round equal columns differently, depending on their position: a duplicate is still a tie.
        slack = _ROUNDING * torch.finfo(lengths.dtype).eps * lengths
        found.append(_others_as_similar(q[block] @ c.T, mine, counts[block], slack).cpu())
    others = torch.cat(found).numpy()
    order = np.lexsort((others, np.repeat(np.arange(len(positives)), positives.counts)))  # within each query
    return PerQuery(others[order] + _positions(positives), starts)


def _comparable(queries: Array, corpus: Array) -> tuple[Tensor, Tensor]:
    """Give the columns that both have on one device, in one precision: float64 if either was, else float32."""
    q, c = rows_of(queries, "queries").detach(), rows_of(corpus, "corpus").detach()
    if q.shape[1] != c.shape[1]:
        raise DimensionError(
            f"expected queries (Q, K) and corpus (C, K) of one width, got {tuple(q.shape)} and {tuple(c.shape)}."
        )
    check_finite(q, "queries")  # NaN compares false with everything and would rank first
    check_finite(c, "corpus")
    dtype = working_dtype(q, c)
    q, c = q.to(dtype), c.to(device=q.device, dtype=dtype)
    # Own blocks of two spaces share no column. What adds nothing to a product must not add to the rounding it may have had.
    shared = q.any(dim=0) & c.any(dim=0)
    return (q, c) if shared.all() else (q[:, shared], c[:, shared])


def _others_as_similar(similarity: Tensor, positives: Tensor, counts: Tensor, slack: Tensor) -> Tensor:
    """Count for each positive `(P,)` of a block the other items at least as similar; `similarity` `(B, C)` is overwritten."""
    row = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    bars = similarity[row, positives] - slack
    if not torch.isfinite(bars).all():
        raise NonFiniteError("inner products overflow: scale queries and corpus to unit rows first.")
    similarity[row, positives] = -torch.inf  # from here on only the others are counted
    if int((similarity == -torch.inf).sum()) != len(positives):
        raise DimensionError("a query names the same corpus row as a positive more than once.")
    column = torch.arange(len(positives), device=counts.device) - (counts.cumsum(0) - counts)[row]
    table = similarity.new_full((len(counts), int(counts.max())), torch.inf)  # a query's positives, one a column
    table[row, column] = bars
    return torch.stack([(similarity >= bar[:, None]).sum(dim=1) for bar in table.T], dim=1)[row, column]


def hits(ranks: PerQuery, k: int) -> NDArray[np.bool_]:
    """Whether each query, `(Q,)`, has at least one positive among the first k: ``[min_j r_j <= k]``.

    The mean is the hit rate, R@k as papers report it. Where the corpus is the classes and the positive is the item's
    class, it is top-k accuracy. A k beyond the corpus hits always.

    Args:
        ranks: of all positives, as `positive_ranks` gives them to every metric: from 1, rising within each query.
        k: at least 1.
    """
    return np.minimum.reduceat(ranks.values, ranks.starts[:-1]) <= k


def true_recalls(ranks: PerQuery, k: int) -> NDArray[np.float64]:
    """Share of each query's positives among the first k, ``|{j : r_j <= k}| / m``: `(Q,)` in [0, 1].

    Not what papers call recall@k (see `hits`), unless every query has one positive. With more than k positives it
    cannot reach 1.
    """
    return _sums(ranks, ranks.values <= k) / ranks.counts


def average_precisions(ranks: PerQuery) -> NDArray[np.float64]:
    """Precision at each positive, averaged over all: ``1/m sum_j j / r_j``, `r_j` rising; `(Q,)` in (0, 1], the mean is mAP.

    The whole corpus is ranked: there is no cut-off. With one positive it equals the reciprocal rank.
    """
    return _sums(ranks, _positions(ranks) / ranks.values) / ranks.counts


def reciprocal_ranks(ranks: PerQuery) -> NDArray[np.float64]:
    """One over the rank of the best positive, ``1 / min_j r_j``: `(Q,)` in (0, 1], the mean is MRR."""
    return 1.0 / np.minimum.reduceat(ranks.values, ranks.starts[:-1])


def discounted_gains(ranks: PerQuery, k: int = 10) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain, relevance 0 or 1 (Järvelin and Kekäläinen 2002); the mean is nDCG@k.

    ``sum_{j : r_j <= k} 1 / log2(r_j + 1)`` over what the best order would reach, ``sum_{i <= min(m, k)} 1 / log2(i + 1)``:
    `(Q,)` in [0, 1].
    """
    return _sums(ranks, _gain(ranks.values, k)) / _sums(ranks, _gain(_positions(ranks), k))


def retrieval_scores(task: str, ranks: PerQuery, *, tops: Sequence[int] = (1, 5, 10)) -> dict[str, NDArray[np.float64]]:
    """Score every query by every retrieval metric.

    Args:
        task: such as `audio_to_image`.
        ranks: from 1.
        tops: the k of hit rate and true recall.

    Returns:
        `(Q,)` by key: `audio_to_image/R@1` (hit rate), `audio_to_image/true_recall@1`, `audio_to_image/mAP`,
        `audio_to_image/MRR` and `audio_to_image/nDCG@10`. Their means are the figures, `mean_interval` gives the
        intervals and `paired_difference` compares them with those of another connection.
    """
    scores = {f"R@{k}": hits(ranks, k).astype(np.float64) for k in tops}
    scores |= {f"true_recall@{k}": true_recalls(ranks, k) for k in tops}
    scores |= {"mAP": average_precisions(ranks), "MRR": reciprocal_ranks(ranks), "nDCG@10": discounted_gains(ranks, 10)}
    return {f"{task}/{name}": values for name, values in scores.items()}


def expected_scores(
    task: str, counts: NDArray[np.int64], corpus: int, *, tops: Sequence[int] = (1, 5, 10)
) -> dict[str, NDArray[np.float64]]:
    """What `retrieval_scores` are on average over random orders of the corpus: chance, exactly.

    With m positives in a corpus of C, the chance that none is among the first r is hypergeometric; each place holds a
    positive with chance m / C, and of the r - 1 before it (r - 1)(m - 1) / (C - 1) are positives on average.

    Args:
        task: such as `audio_to_image`.
        counts: `(Q,)` positives of each query.
        corpus: its size C.
        tops: the k of hit rate and true recall.

    Returns:
        `(Q,)` by the keys of `retrieval_scores`.
    """
    places = np.arange(1, corpus + 1)
    kinds, query_kind = np.unique(counts, return_inverse=True)
    found: dict[str, list[float]] = {}
    for m in kinds.tolist():
        none_before = hypergeom.pmf(0, corpus, m, np.arange(corpus + 1))  # among the first r, r from 0
        for k in tops:
            recall = min(k, corpus) / corpus
            found.setdefault(f"R@{k}", []).append(recall if m == 1 else 1 - none_before[min(k, corpus)])
            found.setdefault(f"true_recall@{k}", []).append(recall)
        before = (places - 1) * (m - 1) / max(1, corpus - 1)
        precision = float(((1 + before) / places).sum() / corpus)
        found.setdefault("mAP", []).append(precision)
        found.setdefault("MRR", []).append(precision if m == 1 else float((-np.diff(none_before) / places).sum()))
        best = _gain(np.arange(1, m + 1), 10).sum()
        found.setdefault("nDCG@10", []).append(float(_gain(places, 10).sum() * m / corpus / best))
    return {f"{task}/{name}": np.array(values)[query_kind] for name, values in found.items()}


def _sums(ranks: PerQuery, values: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.add.reduceat(values, ranks.starts[:-1], dtype=np.float64)


def _positions(given: PerQuery) -> NDArray[np.int64]:
    """1, 2, 3 and so on within each query."""
    return np.arange(1, len(given.values) + 1) - np.repeat(given.starts[:-1], given.counts)


def _gain(ranks: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    return np.where(ranks <= k, 1.0 / np.log2(ranks + 1.0), 0.0)

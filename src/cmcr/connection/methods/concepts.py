"""Concepts: which of a few hundred concepts, found in the overlap by k-means, an item could be.

Items of two spaces are alike if they could be the same concept: ``sum_k p(k | x) p(k | y)``. It is the posterior over the
overlap (Che & Eysenbach, ICLR 2025) with paraphrases joined into concepts, features half whitened, and the concepts refined
on the memories by one step of expectation maximisation.

Cost: seconds (k-means). Prefer it where the overlap names what items show many times over in other words, so that there are
concepts to find; it cannot tell items of one concept apart, nor name what the overlap does not.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from cmcr.connection.maps import Chain, Identity, Map, Posterior
from cmcr.connection.methods.fitting import (
    Fitted,
    Parent,
    Run,
    blocks_of,
    centring_of,
    drawn,
    gap_of,
    linear_map,
    mean_and_covariance,
    shrunk,
    some_rows,
)
from cmcr.connection.settings import Above0, AtLeast0, MethodSettings, Width
from cmcr.errors import ConfigError

REFINING_TEMPERATURE = 0.02
_ROUNDS = 8
_DRAWS = 64  # at once, of rows to start k-means from
_MOST_ROWS = 100_000  # of the overlap that k-means looks at: 130 rows a concept place it well enough


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class ConceptSettings(MethodSettings):
    """Settings of concepts.

    Attributes:
        own_share, own_width: see `MethodSettings`.
        concepts: how many; None takes what leaves a projected row 1024 wide, at least 512, and at most a quarter of the
            overlap's items.
        temperature: of ``p(k | x)``. 0.025 lies between what two sets of real embeddings favour, by their true pairs (0.02
            and 0.03 to 0.05): the one default here that was settled on test figures, for no unpaired criterion ranks it.
        refinement: kappa, the weight of a concept's mean in the overlap against what the memory says of it.
        remove_gap: take the modality gap out of the rows of the outer modality (see `gap_of`).
        whitening: the power of the covariance that features are multiplied by, from -0.5 (whitened) to 0 (as they are).
    """

    concepts: Annotated[Width, Field(ge=2)] | None = None
    temperature: Above0 = 0.025
    refinement: AtLeast0 = 1.0
    remove_gap: bool = True
    whitening: Annotated[float, Field(ge=-0.5, le=0)] = -0.25


@dataclasses.dataclass(frozen=True)
class Clusters:
    """What k-means has found in the overlap.

    Attributes:
        count: K, how many clusters.
        rows: of either space the `(n, D)` overlap rows that it looked at, on the device.
        labels: `(n,)` the cluster of each.
    """

    count: int
    rows: tuple[Tensor, Tensor]
    labels: Tensor


def fit(left: Parent, right: Parent, settings: ConceptSettings, run: Run) -> Fitted:
    """Find the concepts of the overlap in both spaces, and refine them on the memory of each."""
    return of_clusters(left, right, clustered(left, right, settings, run), settings, run)


def clustered(left: Parent, right: Parent, settings: ConceptSettings, run: Run) -> Clusters:
    """Cluster the overlap, both of its embeddings side by side."""
    count = settings.concepts or number_of_concepts(left, right, settings)
    chosen = drawn(len(left.overlap), _MOST_ROWS, run.seed)
    if count > len(chosen):
        raise ConfigError(f"concepts: {count} are more than the {len(chosen)} items of the overlap they are found in.")
    first, second = (some_rows(parent.overlap, chosen).to(run.device) for parent in (left, right))
    joint = torch.cat([F.normalize(rows - rows.mean(dim=0), dim=1) for rows in (first, second)], dim=1)
    return Clusters(count, (first, second), k_means(joint, count, run.seed))


def of_clusters(left: Parent, right: Parent, clusters: Clusters, settings: ConceptSettings, run: Run) -> Fitted:
    """Make a concept of each cluster in both spaces, and refine it on the memory of each."""
    maps = []
    count, labels = clusters.count, clusters.labels
    for parent, rows in zip((left, right), clusters.rows, strict=True):
        found = Posterior(parent.width, count, settings.temperature)
        centring = centring_of(parent, gap_of(parent, run.seed)) if settings.remove_gap else Identity(parent.width)
        found.whitening.copy_(power(mean_and_covariance(parent.outer)[1], settings.whitening))
        anchors = anchors_of(rows, labels, count, power(mean_and_covariance(parent.overlap)[1], settings.whitening))
        found.anchors.copy_(refined(anchors, found.whitening.to(run.device), parent, centring, settings.refinement))
        maps.append(Chain([centring, found]))
    return Fitted(maps[0], maps[1])


def into(base: Parent, leaf: Parent, settings: ConceptSettings, run: Run) -> Map:
    """Carry a space into the coordinates of another, which stay as they are: ``N(sum_k p(k | x) c_k)``.

    ``p`` is the leaf's own posterior and ``c_k`` the base's refined concepts, their whitening undone.
    """
    found = fit(base, leaf, settings, run)
    concepts = list(found.left.modules())[-1]
    assert isinstance(concepts, Posterior)
    anchors = torch.linalg.solve(concepts.whitening, concepts.anchors.T).T
    return Chain([found.right, linear_map(F.normalize(anchors, dim=1))])


def number_of_concepts(left: Parent, right: Parent, settings: ConceptSettings) -> int:
    """Choose how many concepts leave a projected row 1024 wide."""
    own = sum(min(parent.width, (settings.own_width or parent.width) + 1) for parent in (left, right))
    wanted = max(512, 1024 - 2 - (own if settings.own_share else 0))
    return max(2, min(wanted, len(left.overlap) // 4))


def power(covariance: Tensor, exponent: float) -> Tensor:
    """Raise a covariance, shrunk, to a power: `(D, D)` float32."""
    values, vectors = torch.linalg.eigh(shrunk(covariance.double()))
    return ((vectors * values**exponent) @ vectors.T).float()


def anchors_of(rows: Tensor, labels: Tensor, count: int, whitening: Tensor) -> Tensor:
    """Give each concept the whitened mean of its overlap items as a unit row: `(K, D)`."""
    sums = rows.new_zeros(count, rows.shape[1]).index_add_(0, labels, rows)
    return F.normalize(sums @ whitening.to(rows), dim=1)


def refined(anchors: Tensor, whitening: Tensor, parent: Parent, centring: Map, weight: float) -> Tensor:
    """Move concepts towards what the memory shows of them, by one step of expectation maximisation.

    ``c_k <- N(kappa (m / K) c_k + sum_j p(k | x_j) x_j)``, ``p(k | x) = softmax_k(x . c_k / 0.02)``, `m` memory rows.
    """
    sums = weight * (len(parent.outer) / len(anchors)) * anchors
    for block in blocks_of(parent.outer):
        rows = F.normalize(centring(block).to(anchors) @ whitening, dim=1)
        sums = sums + torch.softmax(rows @ anchors.T / REFINING_TEMPERATURE, dim=1).T @ rows
    return F.normalize(sums, dim=1)


def k_means(rows: Tensor, count: int, seed: int) -> Tensor:
    """Cluster rows by Lloyd's algorithm, eight rounds from a k-means++ start.

    Args:
        rows: `(n, D)`.
        count: how many clusters, at most `n`.
        seed: of the start.

    Returns:
        `(n,)` the cluster of each row. A cluster that loses all its rows stays where it was.
    """
    places = rows[k_means_start(rows, count, seed).to(rows.device)]
    for _ in range(_ROUNDS):
        labels = _nearest(rows, places)
        sums = torch.zeros_like(places).index_add_(0, labels, rows)
        sizes = torch.bincount(labels, minlength=count)[:, None]
        places = torch.where(sizes > 0, sums / sizes.clamp_min(1), places)
    return _nearest(rows, places)


def k_means_start(rows: Tensor, count: int, seed: int) -> Tensor:
    """Draw rows to start from, each by its squared distance to those before it (Arthur & Vassilvitskii 2007).

    Many are drawn at once by the distances as they stand, and each is taken with the chance ``new distance / old distance``
    that those taken before it leave it, else dropped. This is the same distribution, computed by a few large matrix products.

    Returns:
        `(count,)` positions.
    """
    generator = torch.Generator().manual_seed(seed)
    squares = rows.square().sum(dim=1)

    def distances(centres: Tensor) -> Tensor:
        return (squares[:, None] + squares[centres] + rows @ (-2 * rows[centres]).T).clamp_min(0)

    taken = [int(torch.randint(len(rows), (), generator=generator))]
    nearest = distances(torch.tensor(taken, device=rows.device))[:, 0]
    while len(taken) < count:
        shares = nearest.cpu().double().cumsum(0)  # Apple's GPUs have no float64
        draws, chances = torch.rand(2, _DRAWS, generator=generator, dtype=torch.float64)
        drawn_rows = torch.searchsorted(shares, draws * shares[-1]).clamp_max(len(rows) - 1).to(rows.device)
        found = distances(drawn_rows)
        among, now, before = found[drawn_rows].cpu(), nearest[drawn_rows].cpu(), nearest[drawn_rows].cpu()
        new = []
        for number, chance in enumerate(chances.tolist()):
            if len(taken) < count and chance * before[number] <= now[number]:
                taken.append(int(drawn_rows[number]))
                new.append(number)
                now = torch.minimum(now, among[:, number])
        nearest = torch.minimum(nearest, found[:, new].amin(dim=1))
    return torch.tensor(taken)


def _nearest(rows: Tensor, places: Tensor) -> Tensor:
    half = places.square().sum(dim=1) / 2
    return torch.cat([(part @ places.T - half).argmax(dim=1) for part in rows.split(8192)])

"""What unpaired rows say of a connection: evidence by held-out overlap items, which no method was fitted on.

Every item of a memory has a nearest held-out overlap item, by the cosine of its own space with the modality gap removed
(`gap_of`). That gives items of two memories labels and pairs without anybody having paired them:

- *class evidence*: the label of an item is the cluster of its nearest held-out item, in a k-means of the held-out items
  alone, eight to a cluster. A connection should rank items of one label first: the geometric mean of the balanced mean
  average precision and the balanced hit rate, both directions.
- *instance evidence*: a held-out item that is the nearest of some item in both memories pairs the item nearest to it in one
  memory with the one in the other. A connection should find the one by the other: R@1, both directions.

The labels are often wrong, and as wrong for every method, so they rank. Class evidence favours what knows concepts, instance
evidence what keeps items of one concept apart: together they rank as true pairs do (see docs/methods.md for how well).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cmcr.connection.maps import Map
from cmcr.connection.methods.concepts import k_means
from cmcr.connection.methods.fitting import Parent, drawn, gap_of, some_rows

HELD_OUT = 0.2
_ITEMS = 4000  # of each memory: so many by so many similarities are compared
_ASKED = 1000
_ITEMS_A_LABEL = 8


@dataclass(frozen=True)
class Found:
    """What was found for one connection, in percent.

    Attributes:
        classes: class evidence.
        instances: instance evidence.
        overlap: R@1 of the held-out overlap items themselves, the mean of both directions.
    """

    classes: float
    instances: float
    overlap: float


class Evidence:
    """Labels and pairs of memory items, by held-out overlap items.

    Args:
        left: rows of the left space, in RAM.
        right: rows of the right one.
        seed: which items of the overlap are held out.

    Attributes:
        left: the left rows without what is held out, to fit methods on.
        right: the same of the right space.
        held_out: the overlap rows that are held out, of the left and the right space.
    """

    def __init__(self, left: Parent, right: Parent, seed: int) -> None:
        order = torch.randperm(len(left.overlap), generator=torch.Generator().manual_seed(seed))
        held, kept = order.split([int(HELD_OUT * len(order)), len(order) - int(HELD_OUT * len(order))])
        self.left, self.right = (Parent(some_rows(p.overlap, kept), p.outer) for p in (left, right))
        texts = self.held_out = [some_rows(parent.overlap, held) for parent in (left, right)]
        joint = torch.cat([F.normalize(rows - rows.mean(dim=0), dim=1) for rows in texts], dim=1)
        clusters = k_means(joint, max(2, len(held) // _ITEMS_A_LABEL), seed)
        self._items, self._labels, nearest, similar = [], [], [], []
        for parent, rows in zip((self.left, self.right), texts, strict=True):
            items = some_rows(parent.outer, drawn(len(parent.outer), _ITEMS, seed))
            similar.append(F.normalize(items - gap_of(parent, seed), dim=1) @ rows.T)
            nearest.append(similar[-1].argmax(dim=1))
            self._items.append(items)
            self._labels.append(clusters[nearest[-1]])
        both = torch.isin(nearest[0].unique(), nearest[1].unique())
        named = nearest[0].unique()[both]
        self._pairs = [each[:, named].argmax(dim=0) for each in similar]

    def of(self, left: Map, right: Map) -> Found:
        """Measure two maps that were fitted on `left` and `right`."""
        with torch.no_grad():
            scores = left(self._items[0]) @ right(self._items[1]).T
            overlap = recall(left(self.held_out[0]), right(self.held_out[1]))
        (first, second), (i, j) = self._labels, self._pairs
        classes = [_by_class(scores, first, second), _by_class(scores.T, second, first)]
        instances = (by_pair(scores, i, j) + by_pair(scores.T, j, i)) / 2
        return Found(float(torch.stack(classes).mean(dim=0).prod().sqrt()), instances, overlap)


def _by_class(scores: Tensor, asked: Tensor, labels: Tensor) -> Tensor:
    """Give the balanced mean average precision and hit rate, in percent, of items whose label both memories have."""
    known = torch.isin(asked, labels).nonzero()[:, 0]
    known = known[torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:_ASKED]]
    if not len(known):
        return scores.new_zeros(2)
    ranked = labels[scores[known].argsort(dim=1, descending=True)]
    hits = (ranked == asked[known][:, None]).float()
    precision = hits.cumsum(dim=1) / torch.arange(1, hits.shape[1] + 1)
    figures = torch.stack([(precision * hits).sum(dim=1) / hits.sum(dim=1), hits[:, 0]])
    _, place, sizes = asked[known].unique(return_inverse=True, return_counts=True)
    return 100 * (figures / sizes[place]).sum(dim=1) / len(sizes)


def by_pair(scores: Tensor, asked: Tensor, partners: Tensor) -> float:
    """Give R@1 in percent; equal scores share the hit.

    Args:
        scores: `(Q, C)`.
        asked: `(n,)` rows of the scores.
        partners: `(n,)` the column that is right for each.
    """
    rows = scores[asked]
    best = rows.amax(dim=1, keepdim=True)
    hit = rows.gather(1, partners[:, None]) >= best
    return 100 * float((hit[:, 0] / (rows == best).sum(dim=1)).mean()) if len(asked) else 0.0


def recall(left: Tensor, right: Tensor) -> float:
    """Give R@1 in percent, the mean of both directions, of rows `(n, K)` of which row i of both belongs together."""
    scores, own = left @ right.T, torch.arange(len(left))
    return (by_pair(scores, own, own) + by_pair(scores.T, own, own)) / 2

"""Distilled: C-MCR that starts at the closed form and learns besides what concepts say of the memories.

`concepts` tells what an item of one space would be in the other: with ``p(k | v)`` its posterior and ``c_k`` the mean of
the centred overlap rows of concept k in the other space,

    r(v) = N(sum_k p(k | v) c_k).

Rows of both memories and what they would be stand in a further term of the loss beside those of the paper, with InfoNCE at
the temperature tau_3 and the noise of semantic completion on the r alone (distillation, Hinton et al. 2015):

    L + mu / 2 (InfoNCE(f_L(v), f_R(r(v))) + InfoNCE(f_L(r(a)), f_R(a))).

So the projectors come nearer to concepts where these are good, keep apart what concepts cannot, and go on where the overlap
names nothing. The weight was settled on synthetic worlds and on the miniature one, never on pairs of real data.

Cost: that of `concepts` and of `residual`, whose training takes half as long again. Prefer it to `residual` where concepts are
worth something and queries go beyond what the overlap names; where they are not, they cost some points, and where they are
all that counts, `concepts` is better.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from cmcr.connection.enhancement import semantic_completion
from cmcr.connection.losses import info_nce
from cmcr.connection.maps import Chain, Map
from cmcr.connection.methods import concepts, residual
from cmcr.connection.methods.fitting import Fitted, Parent, Run, centring_of, linear_map
from cmcr.connection.settings import Above0
from cmcr.connection.training import MoreLoss, project_both
from cmcr.engine.batches import Batches

_ROWS = 500  # of each memory in a step


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class DistilledSettings(residual.ResidualSettings):
    """Settings of the distilled form: those of `ResidualSettings`, and one more.

    Attributes:
        memory_weight: mu, the weight of what concepts say of the memories.
    """

    trained_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    memory_weight: Above0 = 4.0


def fit(left: Parent, right: Parent, settings: DistilledSettings, run: Run) -> Fitted:
    """Find concepts, and train the projectors of the residual form on what they say too."""
    return residual.fit(left, right, settings, run, memory_loss(left, right, settings, run))


def memory_loss(left: Parent, right: Parent, settings: DistilledSettings, run: Run) -> MoreLoss:
    """Make the further term of the loss.

    The seed and the step decide which memory rows it takes, as they do of the overlap.
    """
    asked = concepts.ConceptSettings(own_share=settings.own_share, own_width=settings.own_width)
    clusters = concepts.clustered(left, right, asked, run)
    found = concepts.of_clusters(left, right, clusters, asked, run)
    centrings = [centring_of(parent).to(run.device) if settings.centring else None for parent in (left, right)]
    means = [_means(clusters, number, centring) for number, centring in enumerate(centrings)]
    posteriors = found.left.to(run.device), found.right.to(run.device)
    teachers = [
        Chain([p, linear_map(mean)]).to(run.device) for p, mean in zip(posteriors, reversed(means), strict=True)
    ]
    batches = [Batches((p.outer,), min(_ROWS, len(p.outer)), run.seed, run.device) for p in (left, right)]

    def loss(projectors: tuple[Map, Map], step: int, noise: torch.Generator) -> Tensor:
        (v,), (a,) = (each.rows(step) for each in batches)
        r, s = (
            semantic_completion(teacher(rows), settings.noise_variance, generator=noise, rescale=settings.rescale_noise)
            for teacher, rows in zip(teachers, (v, a), strict=True)
        )
        v, a = (each if to is None else to(each) for to, each in zip(centrings, (v, a), strict=True))
        first = project_both(projectors[0], v, s, settings.batch_norm)
        second = project_both(projectors[1], r, a, settings.batch_norm)
        forth, back = (
            info_nce(*pair, settings.avc_temperature, precision=settings.precision)
            for pair in zip(first, second, strict=True)
        )
        return settings.memory_weight / 2 * (forth + back)

    return loss


def _means(clusters: concepts.Clusters, number: int, centring: Map | None) -> Tensor:
    """Give the mean of each cluster's overlap rows in one space, centred: `(K, D)`."""
    rows = clusters.rows[number]
    rows = rows if centring is None else centring(rows)
    sums = rows.new_zeros(clusters.count, rows.shape[1]).index_add_(0, clusters.labels, rows)
    return sums / torch.bincount(clusters.labels, minlength=clusters.count)[:, None].clamp_min(1)

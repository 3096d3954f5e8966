"""Ways to make embeddings of two spaces comparable: a connection, and what must stand beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcr.connection.connection import Connection
from cmcr.errors import ConfigError
from cmcr.evaluation.baselines import CentredMap, centred_procrustes, centred_ridge, overlap_posterior
from cmcr.evaluation.tasks.embedding import Embedded

Rows = NDArray[np.float32]

RIDGE_STRENGTH = 0.1
"""Of the centred ridge where nothing chooses it: relative to the mean eigenvalue of the overlap's covariance."""


class Way(Protocol):
    """Puts embeddings of either space where they can be compared."""

    @property
    def name(self) -> str:
        """What a table calls it."""
        ...

    def rows(self, embedded: Embedded) -> Rows:
        """Give `(n, K)` rows whose inner products compare items of both spaces."""
        ...


@dataclass(frozen=True)
class ThroughConnection:
    """Compare through a connection's projectors."""

    connection: Connection
    name: str = "connection"

    def rows(self, embedded: Embedded) -> Rows:
        """Project."""
        return self.connection.project(embedded.rows, space=embedded.space)


@dataclass(frozen=True)
class OwnSpace:
    """Compare within one space, as it was before any connection."""

    name: str = "own space"

    def rows(self, embedded: Embedded) -> Rows:
        """Leave them as they are."""
        return embedded.rows


@dataclass(frozen=True)
class Chance:
    """Compare random rows: what no knowledge at all scores under the same rules."""

    seed: int
    name: str = "chance"

    def rows(self, embedded: Embedded) -> Rows:
        """Draw unit rows."""
        key = [self.seed, *f"{embedded.space}/{embedded.modality}".encode()]
        drawn = np.random.default_rng(key).standard_normal((len(embedded.rows), 64), dtype=np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@dataclass(frozen=True)
class SpaceRows:
    """What the baselines need of one space: its unpaired memories, by modality, `(N, D)` unit rows in RAM."""

    rows: Mapping[str, Tensor]
    means: dict[str, Tensor] = field(default_factory=dict)

    def of(self, modality: str) -> Tensor:
        """Give the rows of a modality.

        Raises:
            ConfigError: there is no memory of that modality.
        """
        if modality not in self.rows:
            raise ConfigError(f"the baselines need a memory of {modality}; given are {', '.join(self.rows)}.")
        return self.rows[modality]

    def mean(self, modality: str) -> Tensor:
        """Give the mean row of a modality.

        Raises:
            ConfigError: there is no memory of that modality.
        """
        if modality not in self.means:
            self.means[modality] = self.of(modality).mean(dim=0)
        return self.means[modality]


@dataclass(frozen=True)
class Centred:
    """Compare through a closed form between the centred embeddings of the overlap."""

    name: str
    left: str
    linear: CentredMap
    spaces: Mapping[str, SpaceRows]

    def rows(self, embedded: Embedded) -> Rows:
        """Centre by the modality's own mean; carry the right space into the left."""
        mean = self.spaces[embedded.space].mean(embedded.modality)
        place = self.linear.left if embedded.space == self.left else self.linear.right
        return place(embedded.rows, mean).numpy()


@dataclass(frozen=True)
class Posterior:
    """Compare by which overlap items two items could be, without training."""

    overlap: str
    spaces: Mapping[str, SpaceRows]
    name: str = "posterior"

    def rows(self, embedded: Embedded) -> Rows:
        """Give probabilities over the overlap items."""
        return overlap_posterior(embedded.rows, self.spaces[embedded.space].of(self.overlap)).numpy()


def baselines(left: str, spaces: Mapping[str, SpaceRows], overlap: str) -> list[Way]:
    """Fit the standard baselines from the same unpaired items that a connection is trained on.

    Args:
        left: name of the left space.
        spaces: memories of both spaces, in the connection's order.
        overlap: the shared modality; row i is the same item in both.

    Raises:
        ConfigError: a space has no memory of the overlap.
    """
    one, other = (known.of(overlap) for known in spaces.values())
    fits: dict[str, Callable[[Tensor, Tensor], CentredMap]] = {
        "centred ridge": lambda a, b: centred_ridge(a, b, RIDGE_STRENGTH),
        "centred procrustes": centred_procrustes,
    }
    ways: list[Way] = [Centred(name, left, fit(one, other), spaces) for name, fit in fits.items()]
    return [*ways, Posterior(overlap, spaces)]


def unit_mean(rows: Rows, counts: NDArray[np.int64]) -> Rows:
    """Average consecutive groups of rows, such as the prompts of each class, and scale the means to length one.

    Args:
        rows: `(n, K)`.
        counts: `(c,)` rows a group, at least 1 each; they add up to n.
    """
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sums = torch.from_numpy(np.add.reduceat(rows, starts, axis=0))
    return torch.nn.functional.normalize(sums, dim=1).numpy()

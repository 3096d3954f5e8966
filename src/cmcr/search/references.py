"""Reference queries for hub correction: drawn from memories of what may be asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cmcr.connection.connection import Connection
from cmcr.memories.memory import Memory
from cmcr.search.hubs import MOST_REFERENCES, draw_references


class References:
    """Reference queries of every modality, in the own block of a space and in the common one.

    In the own block a query is of a modality of that space; in the common block of any, and its references are those of
    other spaces where there are some.

    Args:
        connection: carries them into the common block.
        memories: to draw from, each of one of its spaces.

    Attributes:
        memories: the same.
    """

    def __init__(self, connection: Connection, memories: Sequence[Memory]) -> None:
        self.memories = memories
        self._connection = connection

    def modalities(self, block: str, space: str) -> tuple[str, ...]:
        """Name the modalities for which there are reference queries to the items of a space."""
        return tuple(each for each in self._connection.modalities if self._of(block, space, each))

    def rows(self, block: str, space: str, modality: str) -> NDArray[np.float32]:
        """Draw those of a modality: `(R, D)` of the own block, `(R, K)` of the common one."""
        memories = self._of(block, space, modality)
        drawn = [(draw_references(each, MOST_REFERENCES // len(memories)), each.space) for each in memories]
        return np.concatenate([r if block == "own" else self._connection.common(r, s) for r, s in drawn])

    def _of(self, block: str, space: str, modality: str) -> list[Memory]:
        alike = [each for each in self.memories if each.modality == modality]
        inside = [each for each in alike if each.space == space]
        if block == "own":
            return inside
        return [each for each in alike if each.space != space] or inside

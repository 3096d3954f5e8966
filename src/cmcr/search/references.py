"""Reference queries for hub correction, drawn from memories of what may be asked, and what they make of every corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from cmcr._version import __version__
from cmcr.memories.memories import MatchedRows
from cmcr.memories.memory import Memory
from cmcr.search.hubs import draw_references, hub_coordinates
from cmcr.search.layout import BLOCKS
from cmcr.search.sources import Run


class References:
    """Reference queries of every modality, for the own block of a space and the common one.

    In the own block a query is of a modality of that space; in the common block of any, and its references are those of
    other spaces where there are some.

    Args:
        run: its connection carries them into the common block.
        memories: to draw from.
    """

    def __init__(self, run: Run, memories: Sequence[Memory]) -> None:
        kinds: dict[tuple[str, str], list[Memory]] = {}
        for memory in memories:
            kinds.setdefault((memory.space, memory.modality), []).append(memory)
        self._connection = run.connection
        self._rows = {
            kind: np.concatenate([draw_references(memory)[:: len(alike)] for memory in alike])
            for kind, alike in kinds.items()
        }
        self._hash = hashlib.sha256(f"{__version__} {run.hash} {list(self._rows)}".encode())
        for rows in self._rows.values():
            self._hash.update(rows.tobytes())

    def modalities(self, block: str, space: str) -> tuple[str, ...]:
        """Name the modalities for which there are reference queries to the items of a space."""
        return tuple(each for each in self._connection.modalities if self._spaces(block, space, each))

    def queries(self, block: str, space: str, modality: str) -> NDArray[np.float32]:
        """Give those of a modality: `(R, D)` of the own block, `(R, K)` of the common one."""
        if block == "own":
            return self._rows[space, modality]
        spaces = self._spaces(block, space, modality)
        return np.concatenate([self._connection.common(self._rows[each, modality], each) for each in spaces])

    def hash_with(self, own: Memory, count: int) -> str:
        """Hash all that decides the hub coordinates of the first rows of a corpus."""
        hashed = self._hash.copy()
        hashed.update(own.digest(count).encode())
        return hashed.hexdigest()

    def _spaces(self, block: str, space: str, modality: str) -> list[str]:
        spaces = [name for name, each in self._rows if each == modality]
        inside = [name for name in spaces if name == space]
        return inside if block == "own" else [name for name in spaces if name != space] or inside


def hubs_of(run: Run, own: Memory, common: Memory, references: References) -> dict[str, NDArray[np.float32]]:
    """Compute the hub coordinates of a corpus by block, `(N, E)`; those that the older index has are kept."""
    found = {}
    for block, memory in zip(BLOCKS, (own, common), strict=True):
        if not (names := references.modalities(block, own.space)):
            continue
        known = _known(run, own, block, references)
        new, parts = MatchedRows(memory, np.arange(len(known), len(memory))), [known] if len(known) else []
        if len(new):
            run.report(f"hub correction, {own.modality} of {own.space}", BLOCKS.index(block) / len(BLOCKS))
            drawn = (references.queries(block, own.space, each) for each in names)
            parts.append(np.stack([hub_coordinates(new, each) for each in drawn], axis=1))
        found[block] = np.concatenate(parts)
    return found


def _known(run: Run, own: Memory, block: str, references: References) -> NDArray[np.float32]:
    """Find the hub coordinates of the same references that the older index has of the first rows: `(n, E)`."""
    for number, record in enumerate(run.before.corpora if run.before else ()):
        if run.before and record.hubs_of == references.hash_with(own, record.rows):
            with suppress(OSError, SafetensorError), safe_open(run.folder / run.before.arrays, framework="np") as file:
                kept: NDArray[np.float32] = file.get_tensor(f"{number}.{block}_hubs")
                return kept
    return np.zeros((0, 0), dtype=np.float32)

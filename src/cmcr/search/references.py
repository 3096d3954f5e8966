"""Reference queries for hub correction, drawn from memories of what may be asked, and what they make of every corpus."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from cmcr._version import __version__
from cmcr.connection.connection import Connection
from cmcr.errors import IntegrityError
from cmcr.memories.memories import MatchedRows
from cmcr.memories.memory import Memory
from cmcr.search.hubs import MOST_REFERENCES, draw_references, hub_coordinates
from cmcr.search.layout import BLOCKS, open_rows, rows_hash
from cmcr.search.sources import Run


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


def references_of(run: Run, memories: Sequence[Memory]) -> References:
    """Draw from memories as the older index did while they have not become twice as long: else all rows are new."""
    before = run.before
    if before is not None and before.connection_hash == run.hash:
        drawn = {str(run.folder / part.path) for part in before.references}
        alike = drawn == {str(memory.folders[0]) for memory in memories}  # both are absolute, or both in the index
        if alike and sum(map(len, memories)) < 2 * sum(part.rows for part in before.references):
            with suppress(IntegrityError):
                return References(run.connection, [open_rows(run.folder, [part]) for part in before.references])
    return References(run.connection, memories)


def hubs_of(
    run: Run, own: Sequence[Memory], common: Sequence[Memory], references: References
) -> dict[str, NDArray[np.float32]]:
    """Compute the hub coordinates of a corpus by block, `(N, E)`; those that the older index has are kept."""
    space, modality, found = own[0].space, own[0].modality, {}
    for block, memories in zip(BLOCKS, (own, common), strict=True):
        parts, names = list[NDArray[np.float32]](), references.modalities(block, space)
        for source, memory in zip(own, memories, strict=True):
            known = _hubs_known(run, block, names, source, references)
            new, columns = MatchedRows(memory, np.arange(len(known), len(memory))), [known]
            if len(new) and names:
                run.report(f"hub correction, {modality} of {space}", len(parts) / len(memories))
                drawn = (references.rows(block, space, each) for each in names)
                columns.append(np.stack([hub_coordinates(new, each) for each in drawn], axis=1))
            parts.append(np.concatenate(columns))
        if names:
            found[block] = np.concatenate(parts)
    return found


def _hubs_known(
    run: Run, block: str, names: tuple[str, ...], source: Memory, references: References
) -> NDArray[np.float32]:
    """Find the hub coordinates of the same references that the older index has of a memory's first rows: `(n, E)`."""
    before, nothing = run.before, np.zeros((0, len(names)), dtype=np.float32)
    if before is None or (before.connection_hash, before.written_by) != (run.hash, f"cmcr {__version__}"):
        return nothing
    if [rows_hash(m.contents[0]) for m in references.memories] != [p.hash for p in before.references]:
        return nothing
    for number, record in enumerate(before.corpora):
        start = 0
        for part in record.own:
            if run.folder / part.path == source.folders[0] and record.hubs[block] == names:
                with suppress(IntegrityError):
                    open_rows(run.folder, [part])
                    with safe_open(run.folder / before.arrays, framework="np") as file:
                        kept: NDArray[np.float32] = file.get_slice(f"{number}.{block}_hubs")[start : start + part.rows]
                    return kept
            start += part.rows
    return nothing

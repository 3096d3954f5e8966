"""The embeddings of one space, one array or memory on disk per modality; memories on disk grouped by space and matched."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cmcr.arrays import Array, all_rows, unit_rows
from cmcr.errors import ConfigError, DimensionError, TooFewRowsError, unknown_name
from cmcr.memories.memory import Memory

MODALITIES = ("image", "text", "audio", "point_cloud")


class NamedEncoder(Protocol):
    """A space with its encoders, as `cmcr.space` gives it."""

    name: str
    fingerprint: str

    def encode(self, inputs: Any, modality: str, *, batch_size: int, show_progress_bar: bool | None) -> Any:
        """Embed items."""
        ...


class MatchedRows:
    """Some rows of a memory on disk in an order of their own (a `cmcr.arrays.StoredRows`).

    Args:
        memory: on disk.
        positions: `(n,)` of the rows in the memory.

    Attributes:
        shape: `(n, D)`.
    """

    def __init__(self, memory: Memory, positions: NDArray[np.int64]) -> None:
        self.memory, self.positions = memory, positions
        self.space, self.modality, self.fingerprint = memory.space, memory.modality, memory.fingerprint
        self.model, self.revision, self.width = memory.model, memory.revision, memory.width
        self.shape = (len(positions), memory.width)

    @property
    def ids(self) -> list[str]:
        """The ids of all rows."""
        ids = self.memory.ids
        return [ids[position] for position in self.positions]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        return self.memory[self.positions[rows]]

    def blocks(self, rows: int = 4096) -> Iterator[NDArray[np.float32]]:
        """Read all rows in their order, in blocks of at most `rows`: `(n, D)` float32 each."""
        for start in range(0, len(self), rows):
            yield self[start : start + rows]

    def verify(self) -> None:
        """Hash the files of the memory, see `Memory.verify`."""
        self.memory.verify()

    def digest(self) -> str:
        """Hash which rows of which memory these are."""
        return hashlib.sha256(self.memory.digest().encode() + self.positions.tobytes()).hexdigest()


Stored = Memory | MatchedRows


class Memories:
    """What one space has embedded: an array per modality, all of one width.

        clip = cmcr.Memories("clip", text=captions_in_clip, image=pictures_in_clip)

    Rows are scaled to unit length. Nothing is assumed of the order of the rows within a memory; only the modality
    through which two spaces get connected must hold the same items in the same order in both.

    Args:
        space: the space's name, or a space from `cmcr.space`, whose encoders then stay attached.
        **arrays: `image`, `text`, `audio` or `point_cloud`: `(n, D)` floating point, numpy or torch; or a `cmcr.Memory` of
            that modality in this space, which stays on disk.

    Raises:
        ConfigError: no array, an unknown modality (the nearest is named), or an empty name.
        DimensionError: not two axes, or widths that differ between modalities or from the encoder's.
        DtypeError, NonFiniteError, ZeroRowError, TooFewRowsError: unusable embeddings.
    """

    def __init__(self, space: str | NamedEncoder, /, **arrays: Array | Stored) -> None:
        self.space: str = space if isinstance(space, str) else getattr(space, "name", "")
        self.encoder: NamedEncoder | None = None if isinstance(space, str) else space
        self.fingerprint: str | None = getattr(space, "fingerprint", None)
        if not isinstance(self.space, str) or not self.space.strip():
            raise ConfigError(f"expected a space's name or a space from cmcr.space, got {space!r}.")
        if not arrays:
            raise ConfigError(
                f"space {self.space!r}: expected at least one array, by modality: {', '.join(MODALITIES)}."
            )
        rows: dict[str, Tensor | Stored] = {}
        for modality, array in arrays.items():
            if modality not in MODALITIES:
                raise unknown_name("modality", modality, MODALITIES)
            if isinstance(array, Stored):
                self._check_stored(modality, array)
                rows[modality] = array
            else:
                rows[modality] = unit_rows(array, f"{modality} of space {self.space!r}")
        widths = {modality: given.shape[1] for modality, given in rows.items()}
        if len(set(widths.values())) > 1:
            raise DimensionError(
                f"space {self.space!r}: all modalities of one space have one width, got "
                + ", ".join(f"{modality} {width}" for modality, width in widths.items())
                + ". Do they come from the same model, after its projection?"
            )
        self.rows: Mapping[str, Tensor | Stored] = rows
        self._check_against_encoder(widths)

    def _check_stored(self, modality: str, memory: Stored) -> None:
        """Refuse a memory on disk of another space or modality, or from other encoders than the rest."""
        if (memory.space, memory.modality) != (self.space, modality):
            raise ConfigError(
                f"{modality} of space {self.space!r}: the memory on disk is {memory.modality} of {memory.space!r}."
            )
        if self.fingerprint is not None and memory.fingerprint not in (None, self.fingerprint):
            raise ConfigError(
                f"{modality} of space {self.space!r}: the memory on disk is of the encoders {memory.fingerprint}, the rest of "
                f"{self.fingerprint}: embed both with the same model."
            )
        self.fingerprint = self.fingerprint or memory.fingerprint

    def _check_against_encoder(self, widths: Mapping[str, int]) -> None:
        """Refuse arrays that the attached encoders cannot have made."""
        known: Mapping[str, int] | None = getattr(self.encoder, "widths", None)
        if known is None:
            return
        for modality, width in widths.items():
            if modality not in known:
                raise unknown_name(f"modality of {self.space}", modality, known)
            if known[modality] not in (0, width):  # 0: not known yet
                raise DimensionError(
                    f"{modality} of space {self.space!r}: its encoder makes rows {known[modality]} wide, got {width}."
                )

    def loaded(self, modality: str) -> Tensor:
        """Give the unit rows of a modality in RAM: `(n, D)`."""
        rows = self.rows[modality]
        return rows if isinstance(rows, Tensor) else all_rows(rows)

    @property
    def width(self) -> int:
        """Width D of the space."""
        return int(next(iter(self.rows.values())).shape[1])

    def __repr__(self) -> str:
        sizes = ", ".join(f"{modality}: {len(rows)} x {self.width}" for modality, rows in self.rows.items())
        return f"Memories({self.space!r}, {sizes})"


def by_space(memories: Sequence[Memory], overlap: str | Mapping[tuple[str, str], str] | None = None) -> list[Memories]:
    """Group memories on disk into spaces, and match the items of their overlaps by ids.

    A memory of an overlap may lack what its encoder could not embed: items that not every space of the overlap has are left
    out, with a warning.

    Args:
        memories: of two or more spaces, in any order; the space of the first is the first.
        overlap: the shared modality, or that of each pair of spaces; None takes all that are shared, unless two spaces
            share several.

    Returns:
        the spaces; row i of an overlap is the same item in all of them.

    Raises:
        ConfigError: a single space, a modality twice, memories of one space from different encoders, or an id that occurs
            twice in an overlap, so that items cannot be matched.
        DimensionError: memories of one space are not equally wide.
        TooFewRowsError: fewer than two items are in all spaces of an overlap.
    """
    names = list(dict.fromkeys(memory.space for memory in memories))
    if len(names) < 2:
        raise ConfigError(
            f"expected memories of two spaces, got {len(names)}: {', '.join(map(repr, names))}. Give four: the shared "
            "modality and one more, of either space."
        )
    given = {name: _by_modality([memory for memory in memories if memory.space == name]) for name in names}
    rows: dict[str, dict[str, Stored]] = {name: dict(known) for name, known in given.items()}
    for modality in dict.fromkeys(memory.modality for memory in memories):
        sharing = [name for name in names if modality in given[name]]
        if isinstance(overlap, Mapping):
            named = {name for pair, shared in overlap.items() if shared == modality for name in pair}
            sharing = [name for name in sharing if name in named]
        elif overlap not in (None, modality):
            continue
        unclear = overlap is None and any(  # for the caller to refuse, who knows what is asked for
            len(given[one].keys() & given[other].keys()) > 1 for one, other in combinations(sharing, 2)
        )
        if len(sharing) > 1 and not unclear:
            matched = _matched([given[name][modality] for name in sharing])
            for name, chosen in zip(sharing, matched, strict=True):
                rows[name][modality] = chosen
    return [Memories(name, **rows[name]) for name in names]


def _by_modality(memories: Sequence[Memory]) -> dict[str, Memory]:
    """Make sure that memories of one space go together."""
    first = memories[0]
    for memory in memories:
        if memory.fingerprint != first.fingerprint:
            raise ConfigError(
                f"space {first.space!r}: its {first.modality} memory is of the encoders {first.fingerprint}, its "
                f"{memory.modality} memory of {memory.fingerprint}: embed both with the same model."
            )
    by_modality = {memory.modality: memory for memory in memories}
    if len(by_modality) < len(memories):
        raise ConfigError(
            f"space {first.space!r}: a modality was given twice. Make one of several memories: cmcr.Memory(a, b)."
        )
    return by_modality


def _matched(memories: Sequence[Memory]) -> Sequence[Stored]:
    """Choose the rows of memories whose items are in all of them, in the order of the first."""
    positions = [_positions(memory) for memory in memories]
    if all(memory.ids == memories[0].ids for memory in memories):
        return memories
    kept = [id_ for id_ in positions[0] if all(id_ in other for other in positions)]
    names = " and ".join(repr(memory.space) for memory in memories)
    if len(kept) < 2:
        counts = " and ".join(str(len(memory)) for memory in memories)
        raise TooFewRowsError(
            f"the overlap: {names} have {counts} items, and {len(kept)} ids are in all (such as "
            f"{' and '.join(repr(memory.ids[0]) for memory in memories)}). Embed the same list of items with their encoders."
        )
    dropped = sum(map(len, memories)) - len(memories) * len(kept)
    if dropped:
        warnings.warn(
            f"the overlap: {len(kept)} items are in all of {names}; {dropped} that are not are left out.",
            stacklevel=5,  # to the caller of `cmcr.connect`
        )
    return [
        MatchedRows(memory, np.array([place[id_] for id_ in kept], dtype=np.int64))
        for memory, place in zip(memories, positions, strict=True)
    ]


def _positions(memory: Memory) -> dict[str, int]:
    positions: dict[str, int] = {}
    for row, id_ in enumerate(memory.ids):
        if id_ in positions:
            raise ConfigError(
                f"the overlap of {memory.space!r}: the id {id_!r} occurs twice, so items cannot be matched. Were several lists "
                "of one name put together? Embed them with an id column."
            )
        positions[id_] = row
    return positions

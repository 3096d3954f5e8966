"""The embeddings of one space, one array or memory on disk per modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from cmcr.arrays import Array, all_rows, unit_rows
from cmcr.errors import ConfigError, DimensionError, unknown_name
from cmcr.memories.memory import Memory

MODALITIES = ("image", "text", "audio", "point_cloud")


class NamedEncoder(Protocol):
    """A space with its encoders, as `cmcr.space` gives it."""

    name: str
    fingerprint: str

    def encode(self, inputs: Any, modality: str, *, batch_size: int, show_progress_bar: bool | None) -> Any:
        """Embed items."""
        ...


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

    def __init__(self, space: str | NamedEncoder, /, **arrays: Array | Memory) -> None:
        self.space: str = space if isinstance(space, str) else getattr(space, "name", "")
        self.encoder: NamedEncoder | None = None if isinstance(space, str) else space
        self.fingerprint: str | None = getattr(space, "fingerprint", None)
        if not isinstance(self.space, str) or not self.space.strip():
            raise ConfigError(f"expected a space's name or a space from cmcr.space, got {space!r}.")
        if not arrays:
            raise ConfigError(
                f"space {self.space!r}: expected at least one array, by modality: {', '.join(MODALITIES)}."
            )
        rows: dict[str, Tensor | Memory] = {}
        for modality, array in arrays.items():
            if modality not in MODALITIES:
                raise unknown_name("modality", modality, MODALITIES)
            if isinstance(array, Memory):
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
        self.rows: Mapping[str, Tensor | Memory] = rows
        self._check_against_encoder(widths)

    def _check_stored(self, modality: str, memory: Memory) -> None:
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

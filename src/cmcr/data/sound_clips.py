"""A part of a sound file as an item of its own."""

from __future__ import annotations

from dataclasses import dataclass

from cmcr.data.paths import FilePath
from cmcr.data.stretch import Stretch


@dataclass(frozen=True)
class SoundClip:
    """A part of a longer sound. `read_audio` takes it wherever it takes a path.

    Args:
        path: a path or `file://` address.
        start_seconds: where it begins, from 0.
        length_seconds: how long it is, above 0; a sound that ends earlier gives what is there.

    Raises:
        ConfigError: a number out of range.
    """

    path: FilePath
    start_seconds: float
    length_seconds: float

    def __post_init__(self) -> None:
        Stretch(self.start_seconds, self.length_seconds)

    def __str__(self) -> str:
        """Name it in messages."""
        return f"{self.path} ({self.length_seconds:g} s from {self.start_seconds:g} s on)"

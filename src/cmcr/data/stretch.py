"""Which part of a long sound is read, and the words for one that ends too early."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cmcr.errors import ConfigError, SampleError


@dataclass(frozen=True)
class Stretch:
    """A part of a sound; the whole of it by default.

    Args:
        start_seconds: where it begins, from 0. `None` with a length means the middle of the sound, the same rule as
            `window_of`; `None` without one, the beginning.
        length_seconds: how long it is, above 0; `None` means to the end. A sound that ends earlier gives what is there.

    Raises:
        ConfigError: a number out of range.
    """

    start_seconds: float | None = None
    length_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.start_seconds is not None and not (math.isfinite(self.start_seconds) and self.start_seconds >= 0):
            raise ConfigError(f"start_seconds must be at least 0, got {self.start_seconds!r}.")
        if self.length_seconds is not None and not (math.isfinite(self.length_seconds) and self.length_seconds > 0):
            raise ConfigError(f"length_seconds must be above 0, got {self.length_seconds!r}.")

    def span(self, total: int, rate: int, name: str) -> tuple[int, int]:
        """Turn it into sample numbers: the first one, and how many there are of it.

        Args:
            total: how many samples the sound has.
            rate: in hertz.
            name: how messages call the sound.

        Raises:
            SampleError: it begins behind the end of the sound.
        """
        length = total if self.length_seconds is None else self._samples(self.length_seconds, rate)
        if self.start_seconds is None:
            start = 0 if self.length_seconds is None else max(0, (total - length) // 2)
        else:
            start = round(self.start_seconds * rate)
        if start and start >= total:
            raise not_there(name, start / rate, total / rate)
        return start, min(length, total - start)

    def open_span(self, rate: int, name: str) -> tuple[int, int | None]:
        """Do the same for a sound that does not say its length; `None` means to the end, wherever that is.

        Raises:
            SampleError: the middle is wanted.
        """
        if self.length_seconds is None:
            return round((self.start_seconds or 0) * rate), None
        if self.start_seconds is None:
            raise SampleError(f"{name}: does not say its length, so its middle is unknown. Give start_seconds.")
        return round(self.start_seconds * rate), self._samples(self.length_seconds, rate)

    @staticmethod
    def _samples(seconds: float, rate: int) -> int:
        return max(1, round(seconds * rate))


def not_there(name: str, start_seconds: float, total_seconds: float) -> SampleError:
    """Build the error for a part that begins behind the end of a sound."""
    return SampleError(f"{name}: lasts {total_seconds:.2f} s; a part from {start_seconds:.2f} s on is not there.")


def cut_short(name: str, *, promised: float, got: float) -> SampleError:
    """Build the error for a sound that ends before the length (in seconds) that its header promises."""
    return SampleError(
        f"{name}: cut short: the header promises {promised:.2f} s, only {got:.2f} s could be decoded. Fetch it again."
    )

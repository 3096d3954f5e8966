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

    def span(self, total: int | None, rate: int, name: str) -> tuple[int, int | None]:
        """Turn it into sample numbers: the first, and the one behind the last (`None`: to the end, wherever that is).

        Args:
            total: how many samples the sound has, where that is known.
            rate: in hertz.
            name: how messages call the sound.

        Raises:
            SampleError: begins behind the end, or the middle is wanted of a sound that does not say its length.
        """
        length = None if self.length_seconds is None else max(1, round(self.length_seconds * rate))
        if self.start_seconds is None and length is not None:
            if total is None:
                raise SampleError(f"{name}: does not say its length, so its middle is unknown. Give start_seconds.")
            start = max(0, (total - length) // 2)
        else:
            start = round((self.start_seconds or 0) * rate)
        if start and total is not None and start >= total:
            raise SampleError(f"{name}: lasts {total / rate:.2f} s; a part from {start / rate:.2f} s on is not there.")
        ends = [end for end in (total, None if length is None else start + length) if end is not None]
        return start, min(ends, default=None)


def cut_short(name: str, *, promised: float, got: float) -> SampleError:
    """Build the error for a sound that ends before the length (in seconds) that its header promises."""
    return SampleError(
        f"{name}: cut short: the header promises {promised:.2f} s, only {got:.2f} s could be decoded. Fetch it again."
    )

"""How many items may fail before a run is called hopeless."""

from __future__ import annotations

from cmcr.arrays import is_number
from cmcr.errors import ConfigError, TooManyFailuresError

JUDGED_AFTER = 1000
"""Items of which a share is taken at least, so that a bad start does not stop a good run."""


class FailureLimit:
    """Counts failures, and stops a run that has too many.

    Args:
        allowed: a whole number of items; or a share, in [0, 1), of the items tried so far, taken of 1000 at least.

    Raises:
        ConfigError: neither.
    """

    def __init__(self, allowed: float) -> None:
        whole = isinstance(allowed, int) and not isinstance(allowed, bool) and allowed >= 0
        if not whole and not (is_number(allowed) and 0 <= allowed < 1):
            raise ConfigError(
                f"max_failures: expected a number of items or a share below 1, such as 100 or 0.05, got {allowed!r}."
            )
        self.allowed = allowed
        self.tried = self.failed = 0

    def count(self, tried: int, failed: int, last_reason: str = "") -> None:
        """Add what became of some items.

        Raises:
            TooManyFailuresError: more have failed than are allowed.
        """
        self.tried += tried
        self.failed += failed
        share = not isinstance(self.allowed, int)
        most = self.allowed * max(self.tried, JUDGED_AFTER) if share else self.allowed
        if failed and self.failed > most:
            raise TooManyFailuresError(
                f"{self.failed} of {self.tried} items failed, more than the {self.allowed} allowed (max_failures); the last "
                f"one: {last_reason} What was finished is kept: allow more and run it again, then mend the items and complete "
                "the memory (--retry-quarantined); or mend them and begin anew in another folder."
            )


def parsed_limit(text: str) -> float:
    """Read a limit as people write it: "100", "0.05" or "5%".

    Raises:
        ConfigError: none of these.
    """
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return int(text) if text.isdigit() else float(text)
    except ValueError as error:
        raise ConfigError(f"--max-failures: expected a number or a share, such as 100 or 5%, got {text!r}.") from error

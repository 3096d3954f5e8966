"""Which model each space shall be opened with, as it is written on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from cmcr.errors import ConfigError


def models_of(given: Sequence[str]) -> dict[str, str]:
    """Read SPACE=MODEL pairs: models by the space's name.

    Raises:
        ConfigError: a word without `=`.
    """
    wrong = [pair for pair in given if "=" not in pair]
    if wrong:
        raise ConfigError(f"--model: expected SPACE=MODEL, such as ulip=pointbert.pt, got {wrong[0]!r}.")
    return dict(pair.split("=", 1) for pair in given)

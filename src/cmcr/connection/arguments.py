"""Arguments of another kind than they should be, refused before any work."""

from __future__ import annotations

import os

from cmcr.errors import ConfigError


def check_folder(name: str, value: object) -> None:
    """Make sure that an argument is a path, or None.

    Raises:
        ConfigError: it is not.
    """
    if value is not None and not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name}: expected the path of a folder or None, got {value!r}.")


def check_callable(name: str, value: object) -> None:
    """Make sure that an argument can be called, or is None.

    Raises:
        ConfigError: it is not.
    """
    if value is not None and not callable(value):
        raise ConfigError(f"{name}: expected a function or None, got {value!r}.")


def check_kind(name: str, value: object, kind: type, said: str) -> None:
    """Make sure that an argument is of a type, or None.

    Args:
        name: of the argument.
        value: of it.
        kind: that is expected.
        said: that type in words, such as "a mapping".

    Raises:
        ConfigError: it is not.
    """
    if value is not None and not isinstance(value, kind):
        raise ConfigError(f"{name}: expected {said} or None, got {value!r}.")

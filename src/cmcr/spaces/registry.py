"""Spaces by name."""

from __future__ import annotations

from functools import lru_cache

from cmcr.errors import unknown_name
from cmcr.spaces.mini.space import MINI_SPACES, MiniSpace
from cmcr.spaces.protocol import Space


def space_names() -> tuple[str, ...]:
    """The names that `space` knows."""
    return MINI_SPACES


def space(name: str) -> Space:
    """Open a space by its name, its encoders ready.

    Args:
        name: `"mini-clip"` (image, text), `"mini-clap"` (audio, text) or `"mini-ulip"` (point_cloud, image): the
            miniature spaces that come with cmcr.

    Raises:
        ConfigError: an unknown name (the nearest is named).
        ArtefactError: the weights in the installed package are missing or damaged.
    """
    if name not in MINI_SPACES:
        raise unknown_name("space", name, space_names())
    return _mini(name)


@lru_cache(maxsize=len(MINI_SPACES))
def _mini(name: str) -> MiniSpace:
    return MiniSpace(name)

"""Spaces by name: those that come with cmcr, those of installed packages, and those the user registers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from cmcr.errors import ConfigError, unknown_name
from cmcr.spaces.dual_encoders import NAMES, DualEncoderSpace
from cmcr.spaces.hub import PROCESSOR
from cmcr.spaces.mini.space import MINI_SPACES, MiniSpace
from cmcr.spaces.protocol import Space

ENTRY_POINTS = "cmcr.spaces"
"""The group under which an installed package offers spaces: its name is the space's, its value makes it."""

_OWN = {
    "ulip": "cmcr.spaces.ulip.space:UlipSpace",
    "uni3d": "cmcr.spaces.uni3d:Uni3dSpace",
}
_mini = cache(MiniSpace)  # each is opened once
_registered: dict[str, Space | Callable[..., Space]] = {}


def space_names() -> tuple[str, ...]:
    """The names that `space` knows, registered and installed ones included."""
    offered = (point.name for point in entry_points(group=ENTRY_POINTS))
    return tuple(sorted({*MINI_SPACES, *NAMES, *_OWN, *_registered, *offered}))


def space(name: str, **options: Any) -> Space:
    """Open a space by its name, its encoders ready.

    Args:
        name: `"mini-clip"` (image, text), `"mini-clap"` (audio, text) or `"mini-ulip"` (point_cloud, image), which come
            with cmcr; `"clip"`, `"siglip"`, `"siglip2"`, `"clap"`; `"ulip"`, `"uni3d"` (which need `model=`, the path of
            their file); a dual encoder of transformers, by the name of its repository on the hub, such as
            `"google/siglip2-large-patch16-256"`, or by its folder, or under any name with `model=` either of these; or
            whatever was registered or installed.
        **options: what the space takes, such as `model="openai/clip-vit-base-patch32"`, `device="cuda"`.

    Raises:
        ConfigError: an unknown name or option (the nearest is named).
        ArtefactError: the weights are missing or damaged.
        MissingDependencyError: the space needs a library that is not installed.
    """
    factory = _factory(name, "model" in options)
    parameters = inspect.signature(factory).parameters
    for option in options:
        if option not in parameters:
            raise unknown_name(f"option of space {name!r}", option, parameters)
    needed = [p.name for p in parameters.values() if p.default is p.empty and p.name not in options]
    if needed:
        raise ConfigError(
            f"space {name!r} needs {', '.join(f'{option}=...' for option in needed)}: see help(cmcr.space)."
        )
    return factory(**options)


def names_space(name: str) -> bool:
    """Tell whether `space` knows a name, or it is the folder of a published model, or may be a repository on the hub."""
    folder = Path(name)
    published = any((folder / file).is_file() for file in PROCESSOR)
    return name in space_names() or published or ("/" in name and not folder.exists())


def ready_space(name: str) -> Space | None:
    """Open a space that comes with cmcr or was registered as it is; None for one that needs options or files."""
    if name in MINI_SPACES:
        return _mini(name)
    registered = _registered.get(name)
    return registered if isinstance(registered, Space) else None


def register_space(name: str, made_by: Space | Callable[..., Space]) -> None:
    """Give a space of your own a name, for `space`, the command line and saved connections to find it.

    Args:
        name: not one that cmcr uses itself; an earlier registration is replaced.
        made_by: the space, or a function of the options that makes it.

    Raises:
        ConfigError: a name of cmcr's own, or something that is neither a space nor a function.
    """
    if name in {*MINI_SPACES, *NAMES, *_OWN}:
        raise ConfigError(f"the name {name!r} is taken by a space of cmcr; choose another.")
    if not isinstance(made_by, Space) and not callable(made_by):
        raise ConfigError(f"expected a space or a function that makes one, got {type(made_by).__name__}.")
    _registered[name] = made_by


def _factory(name: str, of_a_model: bool) -> Callable[..., Space]:
    if name in MINI_SPACES:
        return partial(_mini, name)
    if name in _registered:
        made_by = _registered[name]
        return (lambda: made_by) if isinstance(made_by, Space) else made_by
    own = [EntryPoint(name, _OWN[name], ENTRY_POINTS)] if name in _OWN else []
    for point in (*own, *entry_points(group=ENTRY_POINTS, name=name)):
        loaded: Callable[..., Space] = point.load()
        return loaded
    if name in NAMES or "/" in name or Path(name).is_dir() or of_a_model:
        return partial(DualEncoderSpace, name)
    raise unknown_name("space", name, space_names())

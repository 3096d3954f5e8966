"""Prompts: sentences around the name of a class, whose mean embedding stands for it in zero-shot classification.

The templates here are our own. Published figures were reached with other ensembles (CLIP's 80 for pictures, ULIP's 64 for
point clouds, "This is a sound of ..." for CLAP), and prompts move top-1 by whole points: to compare with a figure, give the
ensemble it was reached with, which `read_prompts` reads in ULIP's form, and say which.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from cmcr.errors import ConfigError, unknown_name
from cmcr.evaluation.datasets.layout import read_json

_Words = Annotated[str, StringConstraints(pattern=r"\S")]

TEMPLATES: Mapping[str, Sequence[str]] = {
    "image": (
        "a picture of a {}.",
        "a photograph showing a {}.",
        "a snapshot of the {}.",
        "a {} seen up close.",
        "a {} in the distance.",
        "a sharp photograph of a {}.",
        "a blurred photograph of a {}.",
        "a {} in bright light.",
        "a {} in the dark.",
        "a drawing of a {}.",
        "a small picture of the {}.",
        "part of a {}.",
        "several of them: {}.",
        "this is what a {} looks like.",
    ),
    "audio": (
        "the sound of {}.",
        "a recording of {}.",
        "this is {}.",
        "one can hear {}.",
        "{} can be heard.",
        "a short clip of {}.",
        "{} close to the microphone.",
        "{} in the distance.",
        "a noisy recording of {}.",
        "a clear recording of {}.",
        "{} in the background.",
        "somebody recorded {}.",
    ),
    "point_cloud": (
        "a point cloud of a {}.",
        "points on the surface of a {}.",
        "a three-dimensional model of a {}.",
        "a 3D scan of a {}.",
        "the shape of a {}.",
        "a {} made of points.",
        "a rendering of a {} without texture.",
        "a grey model of the {}.",
        "a rough model of a {}.",
        "a detailed model of a {}.",
        "a {} seen from the side.",
        "a {} that stands alone.",
        "a large {}.",
        "a small {}.",
    ),
}
"""Templates by the modality of what is classified; `{}` is where the name of the class goes."""


def prompts_of(name: str, templates: Sequence[str]) -> list[str]:
    """Put the name of a class into every template.

    Args:
        name: in words, with spaces.
        templates: each with `{}` once.

    Raises:
        ConfigError: no templates, one without `{}` or with several, or a name without letters.
    """
    if not templates:
        raise ConfigError("templates: expected at least one, got none.")
    if not name.strip():
        raise ConfigError(f"name of a class: expected words, got {name!r}.")
    for template in templates:
        if template.count("{}") != 1:
            raise ConfigError(f"templates: expected {{}} once, where the name of the class goes, got {template!r}.")
    return [template.replace("{}", name) for template in templates]


def read_prompts(file: str | os.PathLike[str], key: str | None = None) -> list[str]:
    """Read templates, or names of classes, from a JSON file in the form of ULIP's `templates.json` and `labels.json`.

    Args:
        file: an object of lists of strings, such as `{"modelnet40_64": ["a point cloud model of {}.", ...]}`.
        key: which list, such as `modelnet40_64`; may be `None` where there is only one.

    Returns:
        The list as it is in the file. Templates in it are checked where they are used, by `prompts_of`.

    Raises:
        FormatError: another form, or an empty list.
        ConfigError: an unknown key, or none where there are several.
        ReadError: there is no such file, or it cannot be read.
    """
    path = Path(file)
    lists = read_json(path, dict[str, Annotated[list[_Words], Field(min_length=1)]])
    if key is None and len(lists) != 1:
        raise ConfigError(f"{path}: holds {len(lists)} lists; say which: {', '.join(sorted(lists))}.")
    chosen = next(iter(lists)) if key is None else key
    if chosen not in lists:
        raise unknown_name(f"list of prompts in {path}", chosen, lists)
    return lists[chosen]

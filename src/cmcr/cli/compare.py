"""`cmcr compare`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cmcr.cli.console import say, shown_stages
from cmcr.cli.options import Json, memories_of


def compare(
    memories: list[Path],
    /,
    *,
    overlap: str | None = None,
    pairs: list[Path] | None = None,
    rows: int = 20_000,
    seed: int = 0,
    device: str = "auto",
    as_json: Json = False,
) -> None:
    """Compare what the cheap methods would give, by evidence that takes no pairs, in a minute or two; marks what auto chooses.

    Example: cmcr compare captions-in-clip pictures captions-in-clap sounds

    Args:
        memories: Folders of memories, of two spaces, as cmcr connect takes them.
        overlap: The shared modality, where there are two.
        pairs: Two more memories, one of each space, whose items with equal ids belong together: R@1 is measured on them.
        rows: Items of the overlap and of each memory to look at.
        seed: Of what is drawn.
        device: auto, cpu, cuda, mps.
    """
    from cmcr.connection.compare import compare as measure

    with shown_stages(quiet=as_json) as progress:
        given: dict[str, Any] = {"overlap": overlap, "rows": rows, "seed": seed, "device": device, "progress": progress}
        found = measure(*memories_of(memories), pairs=_pairs(pairs) if pairs else None, **given)
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        say(*str(found).splitlines())


def _pairs(folders: list[Path]) -> dict[str, Any]:
    """Match the items of two memories by id."""
    from cmcr.errors import ConfigError

    if len(folders) != 2:
        raise ConfigError(f"--pairs: expected two memories, got {len(folders)}.")
    first, second = memories_of(folders)
    at = {name: number for number, name in enumerate(second.ids)}
    both = [(number, at[name]) for number, name in enumerate(first.ids) if name in at]
    if not both:
        raise ConfigError("--pairs: the two memories have no id in common.")
    left, right = zip(*both, strict=True)
    return {first.space: first[list(left)], second.space: second[list(right)]}

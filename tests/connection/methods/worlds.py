"""Two spaces of few rows whose items are known: continuous latents, or paraphrases of a few concepts."""

import numpy as np

import cmcr
from reference.enhancement import normalize

WIDTHS = {"clip": 8, "clap": 10}
CONCEPTS = 30


def world(kind, seed=0, rows=400, outer=200, pairs=60, gap=0.6):
    """Give the memories of both spaces, and unpaired in them: pairs of their outer modalities.

    A space is a random map, and a gap between its modalities. Of a continuous world the map is linear, on 6 numbers; of a
    world of concepts each concept has a place of its own in each space, with paraphrases around it.
    """
    rng = np.random.default_rng(seed)
    maps = {s: rng.normal(size=(6 if kind == "continuous" else CONCEPTS, width)) for s, width in WIDTHS.items()}
    gaps = {s: gap * normalize(rng.normal(size=(1, width))) for s, width in WIDTHS.items()}
    noise = 0.2 if kind == "continuous" else 0.5

    def items(count):
        return (
            rng.normal(size=(count, 6))
            if kind == "continuous"
            else np.eye(CONCEPTS)[rng.integers(CONCEPTS, size=count)]
        )

    def seen(found, space, outer=True):
        blurred = (
            normalize(found @ maps[space]) + noise * rng.normal(size=(len(found), WIDTHS[space])) / WIDTHS[space] ** 0.5
        )
        return normalize(normalize(blurred) + outer * gaps[space]).astype(np.float32)

    overlap = items(rows)
    clip, clap = (
        cmcr.Memories(space, text=seen(overlap, space, outer=False), **{modality: seen(items(outer), space)})
        for space, modality in (("clip", "image"), ("clap", "audio"))
    )
    paired = items(pairs)
    return clip, clap, {space: seen(paired, space) for space in WIDTHS}


def on_disk(folder, *spaces):
    """Write the memories of spaces, one folder a modality; the ids of the overlap match."""
    return [
        cmcr.write_memory(
            folder / f"{space.space}-{modality}",
            rows.numpy(),
            [f"item-{number}" for number in range(len(rows))],
            space=space.space,
            modality=modality,
            dtype="float32",
        )
        for space in spaces
        for modality, rows in space.rows.items()
    ]

"""Connections of miniature spaces, trained once for all tests on a few hundred items."""

from functools import cache

import numpy as np

import cmcr
from cmcr.data.numbers import SEEN_NUMBERS, draw_pictures, sample_point_clouds, speak_sounds, write_texts


@cache
def audio_image(seed=0, epochs=12):
    """Connect mini-clip and mini-clap through text."""
    left, right, _ = audio_image_items()
    return cmcr.connect(
        _memories("mini-clip", left), _memories("mini-clap", right), method="c-mcr", seed=seed, epochs=epochs
    )


@cache
def cloud_text(seed=0, epochs=12):
    """Connect mini-clip and mini-ulip through pictures."""
    rng, numbers = np.random.default_rng(8), SEEN_NUMBERS
    pictures = list(draw_pictures(numbers, "train", rng))
    left = {"image": pictures, "text": write_texts(rng.permutation(numbers), rng)}
    right = {"image": pictures, "point_cloud": list(sample_point_clouds(rng.permutation(numbers), "train", rng))}
    return cmcr.connect(
        _memories("mini-clip", left), _memories("mini-ulip", right), method="c-mcr", seed=seed, epochs=epochs
    )


@cache
def audio_image_items():
    """Draw what `audio_image` is trained on: items of the left space, of the right one, and the ids of the texts."""
    rng, numbers = np.random.default_rng(7), SEEN_NUMBERS
    sounds = [{"array": heard, "sampling_rate": 8000} for heard in speak_sounds(rng.permutation(numbers), "train", rng)]
    texts = write_texts(numbers, rng)
    pictures = list(draw_pictures(rng.permutation(numbers), "train", rng))
    return {"text": texts, "image": pictures}, {"text": texts, "audio": sounds}, [f"{i:05d}" for i in range(len(texts))]


def _memories(name, items):
    space = cmcr.space(name)
    return cmcr.Memories(space, **{modality: space.encode(given, modality) for modality, given in items.items()})


def write_memories(folder):
    """Write what `audio_image` is trained on into four memories, by name, such as "clip-text"."""
    left, right, ids = audio_image_items()
    written = {}
    for space, items in (("mini-clip", left), ("mini-clap", right)):
        encoder = cmcr.space(space)
        for modality, given in items.items():
            place = folder / f"{space.removeprefix('mini-')}-{modality}"
            cmcr.write_memory(
                place, encoder.encode(given, modality), ids, space=space, modality=modality,
                fingerprint=encoder.fingerprint, dtype="float32",
            )  # fmt: skip
            written[place.name] = place
    return written

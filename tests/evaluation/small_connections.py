"""Connections of miniature spaces, trained once for all tests on a few hundred items."""

from functools import cache

import numpy as np

import cmcr
from cmcr.data.numbers import SEEN_NUMBERS, draw_pictures, sample_point_clouds, speak_sounds, write_texts


@cache
def audio_image(seed=0, epochs=8):
    """Connect mini-clip and mini-clap through text."""
    return cmcr.connect(*_audio_image_memories(), method="c-mcr", seed=seed, epochs=epochs)


@cache
def cloud_text():
    """Connect mini-clip and mini-ulip through pictures."""
    rng, numbers = np.random.default_rng(8), SEEN_NUMBERS
    pictures = list(draw_pictures(numbers, "train", rng))
    left = _memories("mini-clip", image=pictures, text=write_texts(rng.permutation(numbers), rng))
    clouds = list(sample_point_clouds(rng.permutation(numbers), "train", rng))
    return cmcr.connect(left, _memories("mini-ulip", image=pictures, point_cloud=clouds), method="c-mcr", epochs=8)


@cache
def _audio_image_memories():
    rng, numbers = np.random.default_rng(7), SEEN_NUMBERS
    sounds = [{"array": heard, "sampling_rate": 8000} for heard in speak_sounds(rng.permutation(numbers), "train", rng)]
    texts = write_texts(numbers, rng)
    pictures = list(draw_pictures(rng.permutation(numbers), "train", rng))
    return _memories("mini-clip", text=texts, image=pictures), _memories("mini-clap", text=texts, audio=sounds)


def _memories(name, **items):
    space = cmcr.space(name)
    return cmcr.Memories(space, **{modality: space.encode(given, modality) for modality, given in items.items()})


def write_memories(folder):
    """Write what `audio_image` is trained on into four memories, by name, such as "clip-text"."""
    written = {}
    for each in _audio_image_memories():
        for modality, rows in each.rows.items():
            place = folder / f"{each.space.removeprefix('mini-')}-{modality}"
            cmcr.write_memory(
                place, rows.numpy(), [f"{i:05d}" for i in range(len(rows))], space=each.space, modality=modality,
                fingerprint=cmcr.space(each.space).fingerprint, dtype="float32",
            )  # fmt: skip
            written[place.name] = place
    return written

"""Texts and sounds of numbers: number words in several phrasings, and three spoken digits over background noise.

The words were recorded once with espeak-ng in 80 voices (`recipes/mini/speak.py`) and lie beside this file as one Opus
stream; espeak-ng is not needed here.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import numpy as np
import soundfile
from numpy.typing import NDArray

from cmcr.data.numbers.handwriting import Split, digits_of

SAMPLE_RATE_HZ = 8_000
_SAMPLES = 2 * SAMPLE_RATE_HZ
_LONGEST_GAP = 480  # samples of silence between two words, 60 ms
_SNR_DB = (-10.0, 2.0)
_MIXED_TOGETHER = 256  # sounds per piece of work, so that temporary arrays stay small
_NOISE_STRIP = 1 << 18  # samples of noise drawn once a piece; each sound takes a window of it
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_PHRASES = ("{}", "the number {}", "number {}", "this is {}", "it says {}", "code {}")


def _below_hundred(value: int) -> str:
    if value < 20:
        return _UNITS[value]
    tens = _TENS[value // 10 - 2]
    return tens if value % 10 == 0 else f"{tens} {_UNITS[value % 10]}"


def _cardinal(value: int, joiner: str) -> str:
    hundreds, rest = divmod(value, 100)
    if hundreds == 0:
        return _below_hundred(rest)
    head = f"{_UNITS[hundreds]} hundred"
    return head if rest == 0 else f"{head}{joiner}{_below_hundred(rest)}"


def _wordings(value: int) -> tuple[str, ...]:
    """All ways to write one number, the plainest first."""
    spelled = [_UNITS[int(digit)] for digit in f"{value:03d}"]
    return (
        f"{value:03d}",
        " ".join(spelled),
        " ".join("oh" if word == "zero" else word for word in spelled),
        _cardinal(value, " and "),
        _cardinal(value, " "),
    )


def write_texts(numbers: NDArray[np.int64], rng: np.random.Generator) -> list[str]:
    """Write each number once, in a random wording and phrase: `(n,)` integers in 0..999 -> n strings."""
    wording = rng.integers(0, 5, size=len(numbers))
    phrase = rng.integers(0, len(_PHRASES), size=len(numbers))
    return [
        _PHRASES[p].format(_wordings(value)[w])
        for value, w, p in zip(numbers.tolist(), wording.tolist(), phrase.tolist(), strict=True)
    ]


def class_texts(number: int) -> list[str]:
    """All phrasings of one number: the prompt ensemble of its class (30 strings, some equal)."""
    return [phrase.format(wording) for wording in _wordings(number) for phrase in _PHRASES]


@dataclass(frozen=True)
class Voices:
    """The recordings of one split.

    Attributes:
        words: `(m,)` float32, all recordings one after another.
        bounds: `(voices, 10, 2)` first and past-the-last sample of each digit in `words`.
    """

    words: NDArray[np.float32]
    bounds: NDArray[np.int64]


@lru_cache(maxsize=2)
def voices(split: Split) -> Voices:
    """Decode the recordings of one split (0.1 s; kept for the life of the process)."""
    folder = resources.files("cmcr.data.numbers")
    words, _ = soundfile.read(io.BytesIO((folder / "spoken_digits.opus").read_bytes()), dtype="float32")
    index = json.loads((folder / "spoken_digits.json").read_text(encoding="utf-8"))
    bounds = [voice["digits"] for voice in index["voices"] if voice["split"] == split]
    return Voices(words, np.array(bounds, dtype=np.int64))


def speak_sounds(numbers: NDArray[np.int64], split: Split, rng: np.random.Generator) -> NDArray[np.float32]:
    """Speak each number once, digit by digit.

    One random voice of the split per sound, up to 60 ms between the words, a random place in the two seconds, and
    coloured noise between 2 dB below and 10 dB above the speech.

    Args:
        numbers: `(n,)` integers in 0..999.
        split: whose voices to use.
        rng: source of all randomness.

    Returns:
        `(n, 16000)` float32 in [-1, 1], 2 s of mono sound at 8 kHz.
    """
    store = voices(split)
    speaker = rng.integers(0, len(store.bounds), size=len(numbers))
    bounds = store.bounds[speaker[:, None], digits_of(numbers)]
    gaps = rng.integers(0, _LONGEST_GAP, size=(len(numbers), 2))
    place = rng.random(len(numbers))
    sounds = np.zeros((len(numbers), _SAMPLES), dtype=np.float32)
    for i in range(len(numbers)):
        _place_words(sounds[i], store.words, bounds[i], gaps[i], place[i])
    for start in range(0, len(numbers), _MIXED_TOGETHER):
        _add_noise(sounds[start : start + _MIXED_TOGETHER], rng)
    return sounds


def _place_words(
    sound: NDArray[np.float32],
    words: NDArray[np.float32],
    bounds: NDArray[np.int64],
    gaps: NDArray[np.int64],
    place: float,
) -> None:
    """Write three words with the gaps between them into silence, at a relative place (0..1); what is too long is cut."""
    lengths = bounds[:, 1] - bounds[:, 0]
    offsets = np.array([0, lengths[0] + gaps[0], lengths[0] + gaps[0] + lengths[1] + gaps[1]])
    first = int(place * max(0, len(sound) - int(offsets[2] + lengths[2])))
    for (start, stop), offset in zip(bounds, first + offsets, strict=True):
        room = sound[offset : offset + stop - start]
        room[:] = words[start : start + len(room)]


def _add_noise(sounds: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Add smoothed Gaussian noise at a random signal-to-noise ratio and bring the loudest sample to 0.9, in place."""
    strip = rng.standard_normal(size=_NOISE_STRIP, dtype=np.float32)
    strip = strip[1:] + 0.8 * strip[:-1]
    windows = np.lib.stride_tricks.sliding_window_view(strip, _SAMPLES)
    noise = windows[rng.integers(0, len(windows), size=len(sounds))]
    decibels = rng.uniform(*_SNR_DB, size=len(sounds))
    power = np.einsum("ns,ns->n", sounds, sounds) / np.einsum("ns,ns->n", noise, noise)
    noise *= (np.sqrt(power) * 10.0 ** (-decibels / 20.0)).astype(np.float32)[:, None]
    sounds += noise
    sounds *= 0.9 / np.maximum(sounds.max(axis=1), -sounds.min(axis=1))[:, None]

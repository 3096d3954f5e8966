"""The miniature world: three-digit numbers as pictures, sounds, texts and point clouds.

One thousand classes, 000 to 999. Pictures and point clouds are made of real handwritten digits (scikit-learn's
`load_digits`), texts of number words in several phrasings. Sounds are spoken digits, recorded once with espeak-ng in 80
voices (`recipes/mini/speak.py`) and stored beside this file as one Opus stream. Every function draws a batch from a
`numpy.random.Generator`, so the same seed gives the same items. The order of the draws must not change: the miniature
encoders were trained on it.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from cmcr.errors import missing_dependency
from cmcr.interruption import held_back

Split = Literal["train", "test"]

ALL_NUMBERS: NDArray[np.int64] = np.arange(1000)

_TRAIN_SHARE = 0.7  # of the handwriting samples

# Pictures
HEIGHT, WIDTH = 12, 32
_CELL = 10  # horizontal pitch of the digits in pixels; a digit is 8 wide
_NOISE = 0.20  # standard deviation of the ground, in units of full ink

# Point clouds
POINTS_PER_DIGIT = 192
_CLUTTER_POINTS = 32
_DEPTH = 2.0  # thickness of the extrusion, in pixels of the handwriting

# Sounds
SAMPLE_RATE_HZ = 8_000
_SAMPLES = 2 * SAMPLE_RATE_HZ
_LONGEST_GAP = 480  # samples of silence between two words, 60 ms
_SNR_DB = (-10.0, 2.0)
_MIXED_TOGETHER = 256  # sounds per piece of work, so that temporary arrays stay small
_NOISE_STRIP = 1 << 18  # samples of noise drawn once a piece; each sound takes a window of it

# Texts
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_PHRASES = ("{}", "the number {}", "number {}", "this is {}", "it says {}", "code {}")


def digits_of(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Split numbers into their decimal digits, hundreds first: `(n,)` in 0..999 -> `(n, 3)` in 0..9."""
    return np.stack([numbers // 100, numbers // 10 % 10, numbers % 10], axis=1)


# Two hundred numbers that no training of any kind may see. The rule takes exactly two of every ten neighbours, so each digit
# stays equally frequent in each place among the seen and among the unseen numbers.
UNSEEN_NUMBERS: NDArray[np.int64] = ALL_NUMBERS[digits_of(ALL_NUMBERS) @ np.array([1, 3, 7]) % 5 == 2]
SEEN_NUMBERS: NDArray[np.int64] = np.setdiff1d(ALL_NUMBERS, UNSEEN_NUMBERS)


@dataclass(frozen=True)
class Handwriting:
    """The samples of one split, sorted by digit.

    Attributes:
        ink: `(s, 8, 8)` float32 in [0, 1], 1 is full ink.
        first: `(10,)` row of the first sample of each digit.
        count: `(10,)` number of samples of each digit.
    """

    ink: NDArray[np.float32]
    first: NDArray[np.int64]
    count: NDArray[np.int64]

    def pick(self, digits: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Choose a random sample (a row of `ink`) for each entry of `digits`; same shape as `digits`."""
        return self.first[digits] + rng.integers(0, self.count[digits])


@lru_cache(maxsize=2)
def handwriting(split: Split) -> Handwriting:
    """Load the handwritten digits of one split.

    The first 70 % of each digit are for training, the last 30 % for the test. The data set comes in blocks by writer
    without naming them, so these are mostly different hands too; a writer at the cut may be on both sides.

    Raises:
        MissingDependencyError: scikit-learn, which ships the digits, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise missing_dependency("scikit-learn", extra="demo", purpose="its handwritten digits") from error
    data = load_digits()
    rows: list[NDArray[np.int64]] = []
    for digit in range(10):
        of_digit = np.flatnonzero(data.target == digit)
        cut = int(len(of_digit) * _TRAIN_SHARE)
        rows.append(of_digit[:cut] if split == "train" else of_digit[cut:])
    count = np.array([len(r) for r in rows])
    ink = (data.images[np.concatenate(rows)] / 16.0).astype(np.float32)
    return Handwriting(ink, np.concatenate([[0], np.cumsum(count)[:-1]]), count)


def draw_pictures(numbers: NDArray[np.int64], split: Split, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one picture of each number.

    Every digit is another handwriting sample of the split, shifted by up to a pixel sideways and two up or down, its
    ink between 60 and 100 %; Gaussian noise covers the whole picture.

    Args:
        numbers: `(n,)` integers in 0..999.
        split: whose handwriting samples to use.
        rng: source of all randomness.

    Returns:
        `(n, 12, 32)` uint8 grey levels, bright ink on a dark ground.
    """
    hand = handwriting(split)
    samples = hand.pick(digits_of(numbers), rng)
    n = len(numbers)
    canvas = rng.normal(0.12, _NOISE, size=(n, HEIGHT, WIDTH)).astype(np.float32)
    top = rng.integers(0, HEIGHT - 8 + 1, size=(n, 3))
    left = 2 + _CELL * np.arange(3) + rng.integers(-1, 2, size=(n, 3))
    strength = rng.uniform(0.6, 1.0, size=(n, 3)).astype(np.float32)
    row = np.arange(n)[:, None, None]
    for place in range(3):
        y = top[:, place, None, None] + np.arange(8)[None, :, None]
        x = left[:, place, None, None] + np.arange(8)[None, None, :]
        canvas[row, y, x] += hand.ink[samples[:, place]] * strength[:, place, None, None]
    return np.asarray(np.clip(canvas, 0.0, 1.0) * 255.0).astype(np.uint8)


def sample_point_clouds(numbers: NDArray[np.int64], split: Split, rng: np.random.Generator) -> NDArray[np.float32]:
    """Sample one point cloud of each number.

    The ink of every digit is the density from which its points are drawn (uniform within a pixel and over the depth);
    each digit is stretched and shifted a little, the whole solid turned by up to 20 degrees about the vertical axis,
    every point jittered, and points of clutter fill the box around it.

    Args:
        numbers: `(n,)` integers in 0..999.
        split: whose handwriting samples to use.
        rng: source of all randomness.

    Returns:
        `(n, 608, 3)` float32: x to the right, y up, z towards the viewer; one unit is one pixel of the handwriting.
    """
    hand = handwriting(split)
    samples = hand.pick(digits_of(numbers), rng)
    n = len(numbers)
    cumulative = np.cumsum(hand.ink.reshape(-1, 64), axis=1)
    cumulative /= cumulative[:, -1:]
    parts: list[NDArray[np.floating]] = []
    for place in range(3):
        draw = rng.random((n, POINTS_PER_DIGIT), dtype=np.float32)
        pixel = (cumulative[samples[:, place]][:, None, :] < draw[:, :, None]).sum(axis=2).clip(max=63)
        within = rng.random((n, POINTS_PER_DIGIT, 3), dtype=np.float32)
        shift = rng.uniform(-1.0, 1.0, size=(n, 2)).astype(np.float32)
        scale = rng.uniform(0.85, 1.15, size=(n, 2)).astype(np.float32)
        x = (pixel % 8 + within[..., 0] - 4.0) * scale[:, :1] + shift[:, :1] + 10.0 * (place - 1)
        y = (4.0 - pixel // 8 - within[..., 1]) * scale[:, 1:] + shift[:, 1:]
        parts.append(np.stack([x, y, (within[..., 2] - 0.5) * _DEPTH], axis=2))
    box = np.array([34.0, 12.0, 4.0], dtype=np.float32)
    parts.append((rng.random((n, _CLUTTER_POINTS, 3), dtype=np.float32) - 0.5) * box)
    points = np.concatenate(parts, axis=1).astype(np.float32)
    points += 0.15 * rng.standard_normal(points.shape, dtype=np.float32)
    angle = np.asarray(rng.uniform(-np.pi / 9, np.pi / 9, size=n), dtype=np.float32)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    return np.stack([cos * x + sin * z, y, cos * z - sin * x], axis=2)


def _cardinal(value: int, joiner: str) -> str:
    """Write 0..999 in words; `joiner` stands between the hundreds and the rest."""
    if value < 20:
        return _UNITS[value]
    if value < 100:
        head, rest, joiner = _TENS[value // 10 - 2], value % 10, " "
    else:
        head, rest = f"{_UNITS[value // 100]} hundred", value % 100
    return head if rest == 0 else f"{head}{joiner}{_cardinal(rest, joiner)}"


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


@lru_cache(maxsize=2)
def voices(split: Split) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Decode the recordings of one split (0.1 s; kept for the life of the process).

    Returns:
        `(m,)` all recordings one after another, and `(voices, 10, 2)` the first and past-the-last sample of each digit.
    """
    folder = resources.files("cmcr.data")
    with held_back():  # an interrupt inside one of libsndfile's calls into Python is lost
        words, _ = soundfile.read(io.BytesIO((folder / "spoken_digits.opus").read_bytes()), dtype="float32")
    index = json.loads((folder / "spoken_digits.json").read_text(encoding="utf-8"))
    bounds = [voice["digits"] for voice in index["voices"] if voice["split"] == split]
    return words, np.array(bounds, dtype=np.int64)


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
    words, bounds_of = voices(split)
    speaker = rng.integers(0, len(bounds_of), size=len(numbers))
    bounds = bounds_of[speaker[:, None], digits_of(numbers)]
    gaps = rng.integers(0, _LONGEST_GAP, size=(len(numbers), 2))
    place = rng.random(len(numbers))
    sounds = np.zeros((len(numbers), _SAMPLES), dtype=np.float32)
    for sound, spans, gap, at in zip(sounds, bounds, gaps, place, strict=True):
        one, two, three = (words[first:last] for first, last in spans)
        first_gap, second_gap = (np.zeros(samples, dtype=np.float32) for samples in gap)
        spoken = np.concatenate([one, first_gap, two, second_gap, three])[:_SAMPLES]
        first = int(at * (_SAMPLES - len(spoken)))
        sound[first : first + len(spoken)] = spoken
    for start in range(0, len(numbers), _MIXED_TOGETHER):
        _add_noise(sounds[start : start + _MIXED_TOGETHER], rng)
    return sounds


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

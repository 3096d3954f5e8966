"""What the miniature encoders read: decoded items -> tensors. Deterministic: no crop, window or sample is random."""

from __future__ import annotations

import re

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmcr.spaces.mini.towers import NUM_MELS, TEXT_LENGTH

SAMPLE_RATE_HZ = 8_000
CLIP_SAMPLES = 2 * SAMPLE_RATE_HZ
PICTURE_SIZE = (12, 32)  # height, width
GRID_SIZE = (3, 12, 36)  # depth, height, width of the voxel grid
_HALF_BOX = (0.25, 0.36, 1.05)  # what the grid covers on each side of the centre, in radii of the cloud
_REFERENCE_POINTS = 608
_WINDOW, _HOP = 256, 160  # samples: 32 ms and 20 ms

_WORDS = (
    "zero oh one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred "
    "and the number this is it says code 0 1 2 3 4 5 6 7 8 9"
).split()
_PADDING, _CLASS, _UNKNOWN = 0, 1, 2
_TOKEN_OF = {word: token for token, word in enumerate(_WORDS, start=3)}
VOCABULARY_SIZE = len(_WORDS) + 3


def tokens_of(texts: list[str]) -> Tensor:
    """Tokenise texts: lower-cased words, digits one by one; `(n, 14)` integers, the class token first, 0 is padding.

    Words outside the vocabulary become one unknown token; what is beyond 13 words is cut.
    """
    rows = np.full((len(texts), TEXT_LENGTH), _PADDING, dtype=np.int64)
    rows[:, 0] = _CLASS
    for row, text in zip(rows, texts, strict=True):
        words = re.findall(r"\d|[^\W\d_]+", text.lower())[: TEXT_LENGTH - 1]
        row[1 : 1 + len(words)] = [_TOKEN_OF.get(word, _UNKNOWN) for word in words]
    return torch.from_numpy(rows)


def pixels_of(pictures: NDArray[np.uint8]) -> Tensor:
    """Grey pictures `(n, 12, 32)` uint8 -> `(n, 1, 12, 32)` float32 in [0, 1]."""
    return torch.from_numpy(pictures).float().div_(255.0)[:, None]


def _mel_filters() -> Tensor:
    """Triangular filters `(20, 129)`, evenly spaced on the mel scale (2595 log10(1 + f / 700)) from 60 to 4000 Hz."""
    mels = np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 4000 / 700), NUM_MELS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = np.linspace(0, SAMPLE_RATE_HZ / 2, _WINDOW // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return torch.from_numpy(np.clip(np.minimum(rising, falling), 0, None)).float()


_FILTERS = _mel_filters()


def log_mel_of(sounds: Tensor) -> Tensor:
    """Log-mel spectrograms of 2 s clips: `(n, 16000)` at 8 kHz -> `(n, 20, 101)`.

    Each clip is brought to zero mean and unit variance over its spectrogram, so loudness does not matter.
    """
    spectrum = torch.stft(sounds, _WINDOW, _HOP, window=torch.hann_window(_WINDOW), return_complex=True)
    mel = torch.log(_FILTERS @ spectrum.abs().square() + 1e-4)
    mean = mel.mean(dim=(1, 2), keepdim=True)
    return (mel - mean) / mel.std(dim=(1, 2), keepdim=True).clamp_min(1e-3)


def unit_cloud(points: Tensor) -> Tensor:
    """Centre clouds `(n, p, 3)` on their mean and divide by their largest radius (as ULIP does)."""
    centred = points - points.mean(dim=1, keepdim=True)
    return centred / centred.norm(dim=2).amax(dim=1).clamp_min(1e-6)[:, None, None]


def voxels_of(points: Tensor) -> Tensor:
    """Count the points of unit clouds in a grid: `(n, p, 3)` -> `(n, 3, 12, 36)` float32, log(1 + count).

    Counts are scaled to clouds of 608 points, so that density does not depend on how finely an object was sampled. The
    rows of the grid run downwards (y is up in the cloud). Points outside fall into the outermost cells.
    """
    depth, height, width = GRID_SIZE
    size, half = torch.tensor([width, height, depth]), torch.tensor(_HALF_BOX[::-1])
    flipped = points * torch.tensor([1.0, -1.0, 1.0])
    cell = ((flipped / half + 1) / 2 * size).floor().long().clamp(min=torch.zeros(3, dtype=torch.long), max=size - 1)
    x, y, z = cell.unbind(dim=2)
    index = ((torch.arange(len(points))[:, None] * depth + z) * height + y) * width + x
    counts = torch.bincount(index.flatten(), minlength=len(points) * depth * height * width)
    return torch.log1p(counts.float() * (_REFERENCE_POINTS / points.shape[1])).view(-1, depth, height, width)

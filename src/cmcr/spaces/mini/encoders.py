"""What the miniature encoders read, and their networks.

Decoded items become tensors deterministically: no crop, window or sample is random. Each network maps a batch of them to
embeddings `(B, D)`, not yet normalised. Rows never see each other in evaluation mode, so an item's embedding does not
depend on its batch.
"""

from __future__ import annotations

import re

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SAMPLE_RATE_HZ = 8_000
CLIP_SAMPLES = 2 * SAMPLE_RATE_HZ
NUM_MELS = 20
TEXT_LENGTH = 14  # tokens; longer texts are cut
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


class GridTower(nn.Module):
    """A convolutional network over a grid: `(B, channels, H, W)` -> `(B, D)`.

    Pictures are grids of one channel, `(B, 1, 12, 32)` in [0, 1]; point clouds are grids of voxel counts with the depth as
    channels, `(B, 3, 12, 36)`.
    """

    def __init__(self, grid: tuple[int, int, int], width: int) -> None:
        super().__init__()
        channels, height, columns = grid
        self.body = nn.Sequential(
            _convolution(channels, 32, stride=1),
            _convolution(32, 64, stride=2),
            _convolution(64, 96, stride=2),
        )
        self.head = nn.Linear(96 * (height // 4) * (columns // 4), width)

    def forward(self, grids: Tensor) -> Tensor:
        """Embed grids."""
        out: Tensor = self.head(self.body(grids).flatten(1))
        return out


class TextTower(nn.Module):
    """A transformer of two layers over word tokens: `(B, 14)` integers, 0 is padding -> `(B, D)`."""

    def __init__(self, vocabulary_size: int, width: int, inner: int = 80) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary_size, inner)
        self.positions = nn.Parameter(torch.randn(TEXT_LENGTH, inner) * 0.1)
        layer = nn.TransformerEncoderLayer(
            inner, nhead=4, dim_feedforward=2 * inner, dropout=0.0, batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(inner)
        self.head = nn.Linear(inner, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed token rows: the first token of every row is the class token, whose output is the embedding."""
        hidden = self.body(self.tokens(tokens) + self.positions, src_key_padding_mask=tokens == 0)
        out: Tensor = self.head(self.norm(hidden[:, 0]))
        return out


class SoundTower(nn.Module):
    """Convolutions over a log-mel spectrogram, then a recurrent layer over time: `(B, 20, T)` -> `(B, D)`."""

    def __init__(self, width: int, inner: int = 96) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(1, 16, stride=2),
            _convolution(16, 32, stride=2),
        )
        self.mix = nn.Sequential(nn.Linear(32 * NUM_MELS // 4, inner), nn.ReLU())
        self.recurrent = nn.GRU(inner, inner, batch_first=True, bidirectional=True)
        self.head = nn.Linear(4 * inner, width)

    def forward(self, spectrograms: Tensor) -> Tensor:
        """Embed spectrograms: the last state of each direction and the mean over time, through one linear layer."""
        frames = self.body(spectrograms[:, None]).flatten(1, 2).transpose(1, 2)
        states, last = self.recurrent(self.mix(frames))
        out: Tensor = self.head(torch.cat([last[0], last[1], states.mean(dim=1)], dim=1))
        return out


def _convolution(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )

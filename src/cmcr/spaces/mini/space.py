"""The miniature spaces: small contrastive encoders of the world of three-digit numbers, shipped with cmcr.

Decoded items become tensors deterministically: no crop, window or sample is random. Each network maps a batch of them to
embeddings `(B, D)`, not yet normalised. Rows never see each other in evaluation mode, so an item's embedding does not
depend on its batch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from cmcr.data.audio import read_audio, window_of
from cmcr.data.images import read_image, to_rgb
from cmcr.data.point_clouds import read_point_cloud
from cmcr.data.texts import read_text
from cmcr.errors import FormatError
from cmcr.spaces.tower import Tower, TowerSpace

MINI_WIDTHS = {"mini-clap": 96, "mini-clip": 128, "mini-ulip": 64}
MINI_SPACES = tuple(MINI_WIDTHS)
_PREPROCESSING = "2"  # raise it when the preprocessing or a decoder changes what the encoders see

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


def mini_towers(name: str) -> nn.ModuleDict:
    """Build the networks of a miniature space, by modality, with random weights."""
    width = MINI_WIDTHS[name]
    if name == "mini-clip":
        return nn.ModuleDict({"image": GridTower((1, *PICTURE_SIZE), width), "text": TextTower(VOCABULARY_SIZE, width)})
    if name == "mini-clap":
        return nn.ModuleDict({"audio": SoundTower(width), "text": TextTower(VOCABULARY_SIZE, width)})
    return nn.ModuleDict({"point_cloud": GridTower(GRID_SIZE, width), "image": GridTower((1, *PICTURE_SIZE), width)})


class MiniSpace(TowerSpace):
    """One of the miniature spaces (a `Space`).

    Pictures are read as grey 12 x 32 (what is transparent shows white), sounds as the middle 2 s at 8 kHz mono, point
    clouds centred and scaled to unit radius with y up, texts as up to 13 words.

    Args:
        name: one of `MINI_SPACES`.

    Raises:
        FormatError: the weights in the package are missing or damaged.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            weights = _weights(name)
            state = load(weights)
        except (OSError, SafetensorError) as error:
            raise FormatError(f"the weights of {name} are missing or damaged ({error}). Reinstall cmcr.") from error
        # Not on the device "meta", on which torch imports its compiler for an embedding's random start: over a second.
        with torch.random.fork_rng(devices=[]):  # that start must not move the caller's random state
            self._networks = mini_towers(name)
        self._networks.load_state_dict(state, assign=True)
        self._networks.float().eval().requires_grad_(False)  # the file holds float16
        self.widths = dict.fromkeys(self._networks, MINI_WIDTHS[name])
        self.fingerprint = hashlib.sha256(weights + _PREPROCESSING.encode()).hexdigest()[:16]

    def _move_to(self, device: torch.device) -> None:
        self._networks.to(device)

    def _tower(self, modality: str) -> Tower:
        decode, collate = _READ[modality]
        network = self._networks[modality]
        device = next(network.parameters()).device

        def embed(items: list[Any]) -> Tensor:
            rows: Tensor = network(collate(items).to(device))
            return rows

        return Tower(self.widths[modality], decode, embed)


def _weights(name: str) -> bytes:
    return (resources.files("cmcr.spaces.mini") / "weights" / f"{name}.safetensors").read_bytes()


def _picture(item: Any) -> NDArray[np.uint8]:
    height, width = PICTURE_SIZE
    grey = to_rgb(read_image(item)).convert("L")
    if grey.size != (width, height):
        grey = grey.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(grey)


def _voxels(clouds: list[NDArray[np.float32]]) -> Tensor:
    if len({len(cloud) for cloud in clouds}) == 1:  # together, which takes less than half the time
        return voxels_of(unit_cloud(torch.from_numpy(np.stack(clouds))))
    return torch.cat([voxels_of(unit_cloud(torch.from_numpy(cloud)[None])) for cloud in clouds])


_READ: dict[str, tuple[Callable[[Any], Any], Callable[[list[Any]], Tensor]]] = {
    "image": (_picture, lambda pictures: pixels_of(np.stack(pictures))),
    "audio": (
        lambda item: window_of(read_audio(item, SAMPLE_RATE_HZ), CLIP_SAMPLES),
        lambda clips: log_mel_of(torch.from_numpy(np.stack(clips))),
    ),
    "point_cloud": (read_point_cloud, _voxels),
    "text": (read_text, tokens_of),
}
"""By modality, how one item is decoded and how a batch of decoded ones becomes a tensor."""

"""The encoders of the miniature spaces: one small network per modality.

Each tower maps a batch of preprocessed items to embeddings `(B, D)`, not yet normalised. Rows never see each other in
evaluation mode, so an item's embedding does not depend on its batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

TEXT_LENGTH = 14  # tokens; longer texts are cut
NUM_MELS = 20


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

"""What the transformers over groups of points share, under the names of the published files.

Only inference is here: no drop path, no dropout. Letters: `B` batch, `G` groups, `S` points in a group, `C` channels of a
point (3, or 6 with colours), `T` tokens, `D` width, `E` width of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FIRST = (128, 256)  # channels of the small PointNet's first half
_SECOND = 512
_POSITION = 128  # hidden width of the network that embeds the place of a group


@dataclass(frozen=True)
class TowerShape:
    """The sizes of a tower's transformer.

    Attributes:
        width: D of the tokens.
        depth: blocks.
        heads: attention heads; D is a multiple of it.
        hidden: inner width of the blocks' networks.
        embedding: width E of the embeddings.
    """

    width: int
    depth: int
    heads: int
    hidden: int
    embedding: int


class GroupTokens(nn.Module):
    """Groups of points as tokens: what PointBERT and Uni3D do before the first block of their transformers.

    Args:
        width: D of the tokens.
        channels: C of a point.
        group_width: width of a group's features before they become a token.
    """

    def __init__(self, width: int, channels: int, group_width: int) -> None:
        super().__init__()
        self.encoder = _GroupEncoder(channels, group_width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.cls_pos = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Sequential(nn.Linear(3, _POSITION), nn.GELU(), nn.Linear(_POSITION, width))

    def tokens(self, neighborhoods: Tensor, centers: Tensor, widen: nn.Linear) -> tuple[Tensor, Tensor]:
        """Make the tokens of clouds, the class token first.

        Args:
            neighborhoods: `(B, G, S, C)`, coordinates relative to the centre of their group.
            centers: `(B, G, 3)`.
            widen: a group's features -> a token.

        Returns:
            `(B, 1 + G, D)` tokens, and as much for their positions.
        """
        batch = len(centers)
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), widen(self.encoder(neighborhoods))], dim=1)
        return tokens, torch.cat([self.cls_pos.expand(batch, -1, -1), self.pos_embed(centers)], dim=1)


class _GroupEncoder(nn.Module):
    """A small PointNet: groups `(B, G, S, C)` -> features `(B, G, width)`, whatever the order of a group's points."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        inner, outer = _FIRST
        self.first_conv = nn.Sequential(
            nn.Conv1d(channels, inner, 1), nn.BatchNorm1d(inner), nn.ReLU(), nn.Conv1d(inner, outer, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * outer, _SECOND, 1), nn.BatchNorm1d(_SECOND), nn.ReLU(), nn.Conv1d(_SECOND, width, 1)
        )

    def forward(self, neighborhoods: Tensor) -> Tensor:
        points: Tensor = self.first_conv(neighborhoods.flatten(0, 1).transpose(1, 2))
        whole = points.amax(dim=2, keepdim=True)
        # Published: the whole is repeated for every point and both go through one convolution. The whole's half of it is
        # the same for all points of a group, so it is computed once.
        mix = cast(nn.Conv1d, self.second_conv[0])
        of_whole, of_points = mix.weight.split(points.shape[1], dim=1)
        features: Tensor = self.second_conv[1:](F.conv1d(points, of_points, mix.bias) + F.conv1d(whole, of_whole))
        return features.amax(dim=2).unflatten(0, neighborhoods.shape[:2])


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: int, causal: bool = False) -> Tensor:
    """Softmax attention with several heads: three times `(B, T, D)` -> `(B, T, D)`."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal).transpose(1, 2).flatten(2)

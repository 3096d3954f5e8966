"""PointBERT as ULIP-2 trained it: a transformer over groups of neighbouring points.

Modules are named as in the published file, so that it loads strictly. Only inference is here: no drop path, no dropout.
Letters: `B` batch, `G` groups, `S` points in a group, `C` channels of a point (3, or 6 with colours), `D` width,
`T` tokens (`1 + G`), `E` width of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FIRST = (128, 256)  # channels of the small PointNet's first half
_SECOND = 512
_POSITION = 128  # hidden width of the network that places a group


@dataclass(frozen=True)
class PointBertShape:
    """The sizes of a PointBERT.

    Attributes:
        channels: of a point, 3 (coordinates) or 6 (and colours).
        width: D of the tokens; 384 in the published files.
        depth: blocks; 12 in the file of 8192 coordinates, 18 in the coloured one.
        heads: attention heads; 6 in the published files.
        group_width: width of a group's features before they become a token; 256 in the published files.
        hidden: inner width of the blocks' networks; 4 D in the published files.
        embedding: width E of the embeddings; 512, or 1280 in the coloured file.
    """

    channels: int = 3
    width: int = 384
    depth: int = 12
    heads: int = 6
    group_width: int = 256
    hidden: int = 1536
    embedding: int = 512


class PointCloudTower(nn.Module):
    """PointBERT and the projection into the space: the keys `point_encoder.*` and `pc_projection`."""

    def __init__(self, shape: PointBertShape) -> None:
        super().__init__()
        self.shape = shape
        self.point_encoder = PointBert(shape)
        self.pc_projection = nn.Parameter(torch.empty(2 * shape.width, shape.embedding))

    def forward(self, neighborhoods: Tensor, centers: Tensor) -> Tensor:
        """Embed clouds; arguments as `PointBert.forward`; returns `(B, E)`, not normalised."""
        features: Tensor = self.point_encoder(neighborhoods, centers)
        return features @ self.pc_projection


class PointBert(nn.Module):
    """The transformer over groups of points (Yu et al., 2022), with the class token and the maximum as its features."""

    def __init__(self, shape: PointBertShape) -> None:
        super().__init__()
        self.encoder = GroupEncoder(shape.channels, shape.group_width)
        self.reduce_dim = nn.Linear(shape.group_width, shape.width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, shape.width))
        self.cls_pos = nn.Parameter(torch.empty(1, 1, shape.width))
        self.pos_embed = nn.Sequential(nn.Linear(3, _POSITION), nn.GELU(), nn.Linear(_POSITION, shape.width))
        self.blocks = Blocks(shape)
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, neighborhoods: Tensor, centers: Tensor) -> Tensor:
        """Compute the features of clouds.

        Args:
            neighborhoods: `(B, G, S, C)`, coordinates relative to the centre of their group.
            centers: `(B, G, 3)`.

        Returns:
            `(B, 2 D)`: the class token beside the maximum over groups, both after the final norm.
        """
        batch = len(centers)
        groups = self.reduce_dim(self.encoder(neighborhoods))
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), groups], dim=1)
        positions = torch.cat([self.cls_pos.expand(batch, -1, -1), self.pos_embed(centers)], dim=1)
        tokens = self.norm(self.blocks(tokens, positions))
        return torch.cat([tokens[:, 0], tokens[:, 1:].amax(dim=1)], dim=-1)


class GroupEncoder(nn.Module):
    """A small PointNet: the features of a group, whatever the order of its points.

    Args:
        channels: C of a point.
        width: of the features.
    """

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
        """Turn groups `(B, G, S, C)` into features `(B, G, width)`."""
        batch, groups = neighborhoods.shape[:2]
        points: Tensor = self.first_conv(neighborhoods.flatten(0, 1).transpose(1, 2))
        whole = points.amax(dim=2, keepdim=True)
        # Published: the whole is repeated for every point and both go through one convolution. The whole's half of it is
        # the same for all points of a group, so it is computed once.
        mix = cast(nn.Conv1d, self.second_conv[0])
        of_whole, of_points = mix.weight.split(points.shape[1], dim=1)
        mixed = F.conv1d(points, of_points, mix.bias) + F.conv1d(whole, of_whole)
        features: Tensor = self.second_conv[1:](mixed)
        return features.amax(dim=2).unflatten(0, (batch, groups))


class Blocks(nn.Module):
    """The transformer's blocks; the positions are added before every one of them, not only before the first."""

    def __init__(self, shape: PointBertShape) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(shape.width, shape.heads, shape.hidden, qkv_bias=False) for _ in range(shape.depth)
        )

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Carry tokens `(B, T, D)` with positions `(B, T, D)` through all blocks."""
        for block in self.blocks:
            tokens = block(tokens + positions)
        return tokens


class Block(nn.Module):
    """A transformer block that normalises first, under the names of timm; the image tower has the same.

    Args:
        width: D of the tokens.
        heads: attention heads; D is a multiple of it.
        hidden: inner width of the network.
        qkv_bias: whether queries, keys and values have a bias.
        epsilon: of the norms.
    """

    def __init__(self, width: int, heads: int, hidden: int, *, qkv_bias: bool, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.attn = Attention(width, heads, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        self.mlp = FeedForward(width, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """Carry tokens `(B, T, D)` through the block."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class Attention(nn.Module):
    """Self-attention over all tokens, under the names of timm."""

    def __init__(self, width: int, heads: int, *, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Let tokens `(B, T, D)` attend to each other."""
        attended: Tensor = self.proj(attend(self.qkv(tokens), self.heads))
        return attended


class FeedForward(nn.Module):
    """The network of a block, under the names of timm."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Carry tokens `(B, T, D)` through the network."""
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


def attend(qkv: Tensor, heads: int, *, causal: bool = False) -> Tensor:
    """Softmax attention.

    Args:
        qkv: `(B, T, 3 D)`: queries, keys and values beside each other.
        heads: D is a multiple of it.
        causal: a token sees those before it and itself only.

    Returns:
        `(B, T, D)`.
    """
    query, key, value = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal).transpose(1, 2).flatten(2)

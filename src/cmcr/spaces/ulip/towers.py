"""The three towers of a ULIP-2 file: PointBERT, SLIP's ViT-B/16 for pictures, and its text transformer.

Modules are named as in the published file (timm's names for points and pictures, CLIP's for texts), so that it loads
strictly. Only inference is here: no drop path, no dropout. Letters: `B` batch, `G` groups, `S` points in a group,
`C` channels of a point (3, or 6 with colours), `T` tokens, `D` width, `E` width of the embedding, `L` token ids.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmcr.spaces.points.towers import GroupTokens, TowerShape, attend

_TIMM_EPSILON = 1e-6  # of the norms of the picture tower; torch's own default is 1e-5


POINT_BERT = TowerShape(width=384, depth=12, heads=6, hidden=1536, embedding=512)
"""Of the published file of 8192 coordinates; the coloured one has 18 blocks and an embedding of 1280."""


class PointCloudTower(nn.Module):
    """PointBERT and the projection into the space: the keys `point_encoder.*` and `pc_projection`.

    Args:
        shape: of the transformer over groups.
        channels: C of a point, 3 (coordinates) or 6 (and colours).
        group_width: width of a group's features before they become a token.
    """

    def __init__(self, shape: TowerShape, *, channels: int = 3, group_width: int = 256) -> None:
        super().__init__()
        self.shape, self.channels = shape, channels
        self.point_encoder = _PointBert(shape, channels, group_width)
        self.pc_projection = nn.Parameter(torch.empty(2 * shape.width, shape.embedding))

    def forward(self, neighborhoods: Tensor, centers: Tensor) -> Tensor:
        """Embed clouds.

        Args:
            neighborhoods: `(B, G, S, C)`, coordinates relative to the centre of their group.
            centers: `(B, G, 3)`.

        Returns:
            `(B, E)`, not normalised.
        """
        features: Tensor = self.point_encoder(neighborhoods, centers)
        return features @ self.pc_projection


class _PointBert(GroupTokens):
    """The transformer over groups of points (Yu et al., 2022).

    Its features `(B, 2 D)` are the class token beside the maximum over groups, both after the final norm.
    """

    def __init__(self, shape: TowerShape, channels: int, group_width: int) -> None:
        super().__init__(shape.width, channels, group_width)
        self.reduce_dim = nn.Linear(group_width, shape.width)
        blocks = [_Block(shape, qkv_bias=False) for _ in range(shape.depth)]
        self.blocks = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.norm = nn.LayerNorm(shape.width)

    def forward(self, neighborhoods: Tensor, centers: Tensor) -> Tensor:
        tokens, positions = self.tokens(neighborhoods, centers, self.reduce_dim)
        for block in self.blocks["blocks"].children():
            tokens = block(tokens + positions)  # before every block, not only before the first
        tokens = self.norm(tokens)
        return torch.cat([tokens[:, 0], tokens[:, 1:].amax(dim=1)], dim=-1)


class ImageTower(nn.Module):
    """The vision transformer and its projection: the keys `visual.*` and `image_projection`.

    Args:
        shape: of the transformer over patches.
        size: height and width of the pictures in pixels.
        patch: height and width of a patch in pixels.
    """

    def __init__(self, shape: TowerShape, *, size: int = 224, patch: int = 16) -> None:
        super().__init__()
        self.shape, self.size = shape, size
        self.visual = _VisionTransformer(shape, size, patch)
        self.image_projection = nn.Parameter(torch.empty(shape.width, shape.embedding))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed normalised pictures `(B, 3, size, size)`; returns `(B, E)`, not normalised."""
        features: Tensor = self.visual(pixels)
        return features @ self.image_projection


class _VisionTransformer(nn.Module):
    """A vision transformer: pictures `(B, 3, H, W)` -> features `(B, D)`, the class token after the final norm."""

    def __init__(self, shape: TowerShape, size: int, patch: int) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, shape.width, patch, stride=patch)})
        self.cls_token = nn.Parameter(torch.empty(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + (size // patch) ** 2, shape.width))
        blocks = [_Block(shape, qkv_bias=True, epsilon=_TIMM_EPSILON) for _ in range(shape.depth)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(shape.width, eps=_TIMM_EPSILON)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](pixels).flatten(2).transpose(1, 2)  # row by row
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1) + self.pos_embed
        features: Tensor = self.norm(self.blocks(tokens)[:, 0])
        return features


class TextTower(nn.Module):
    """CLIP's text transformer: the keys `token_embedding.*` to `text_projection`, which have no prefix in the file.

    Args:
        shape: of the transformer over tokens.
        vocabulary: how many tokens there are; the last two are the start and the end of a text.
        context: the greatest length L of the token ids.
    """

    def __init__(self, shape: TowerShape, *, vocabulary: int = 49408, context: int = 77) -> None:
        super().__init__()
        self.shape, self.vocabulary, self.context = shape, vocabulary, context
        # Given its weight: to draw one at random on the device meta, torch would import its compiler for over a second.
        self.token_embedding = nn.Embedding(vocabulary, shape.width, _weight=torch.empty(vocabulary, shape.width))
        self.positional_embedding = nn.Parameter(torch.empty(context, shape.width))
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(*(_TextBlock(shape) for _ in range(shape.depth)))})
        self.ln_final = nn.LayerNorm(shape.width)
        self.text_projection = nn.Parameter(torch.empty(shape.width, shape.embedding))

    def forward(self, token_ids: Tensor) -> Tensor:
        """Embed texts.

        Args:
            token_ids: `(B, L)` int64, L at most the context. The end of a text is its highest id; what follows it is never
                looked at.

        Returns:
            `(B, E)`, not normalised.
        """
        tokens = self.token_embedding(token_ids) + self.positional_embedding[: token_ids.shape[1]]
        tokens = self.transformer["resblocks"](tokens)
        ends = tokens[torch.arange(len(tokens), device=tokens.device), token_ids.argmax(dim=1)]
        features: Tensor = self.ln_final(ends)
        return features @ self.text_projection


class _Block(nn.Module):
    """A block on tokens `(B, T, D)` that normalises first, under the names of timm; of the point and the image tower."""

    def __init__(self, shape: TowerShape, *, qkv_bias: bool, epsilon: float = 1e-5) -> None:
        super().__init__()
        width, hidden = shape.width, shape.hidden
        self.heads = shape.heads
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width, bias=qkv_bias), "proj": nn.Linear(width, width)})
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        self.mlp = nn.Sequential(OrderedDict(fc1=nn.Linear(width, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, width)))

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = self.attn["qkv"](self.norm1(tokens))
        tokens = tokens + self.attn["proj"](attend(*qkv.chunk(3, dim=-1), heads=self.heads))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class _TextBlock(nn.Module):
    """A block on tokens `(B, L, D)` that normalises first and sees earlier tokens only, under the names of CLIP."""

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        width = shape.width
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, shape.heads)  # for its names
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, shape.hidden), gelu=_QuickGELU(), c_proj=nn.Linear(shape.hidden, width))
        )

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = F.linear(self.ln_1(tokens), self.attn.in_proj_weight, self.attn.in_proj_bias)
        tokens = tokens + self.attn.out_proj(attend(*qkv.chunk(3, dim=-1), heads=self.attn.num_heads, causal=True))
        out: Tensor = tokens + self.mlp(self.ln_2(tokens))
        return out


class _QuickGELU(nn.Module):
    """`x sigmoid(1.702 x)`: what CLIP was trained with in place of the exact GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)

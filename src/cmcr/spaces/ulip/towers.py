"""The image and text towers that lie in the same file as PointBERT: SLIP's ViT-B/16 and its text transformer.

Modules are named as in the published file (timm's names for pictures, CLIP's for texts), so that it loads strictly.
Letters: `B` batch, `T` tokens, `D` width, `E` width of the embedding, `L` length of the token ids.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cmcr.spaces.ulip.pointbert import Block, attend

_TIMM_EPSILON = 1e-6  # of timm's norms; torch's own default is 1e-5


@dataclass(frozen=True)
class ImageShape:
    """The sizes of the image tower; the defaults are those of the published file (ViT-B/16).

    Attributes:
        size: height and width of the pictures in pixels.
        patch: height and width of a patch in pixels.
        width: D of the tokens.
        depth: blocks.
        heads: attention heads.
        hidden: inner width of the blocks' networks.
        embedding: width E of the embeddings.
    """

    size: int = 224
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072
    embedding: int = 512


class ImageTower(nn.Module):
    """The vision transformer and its projection: the keys `visual.*` and `image_projection`."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.shape = shape
        self.visual = VisionTransformer(shape)
        self.image_projection = nn.Parameter(torch.empty(shape.width, shape.embedding))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed normalised pictures `(B, 3, size, size)`; returns `(B, E)`, not normalised."""
        features: Tensor = self.visual(pixels)
        return features @ self.image_projection


class VisionTransformer(nn.Module):
    """A vision transformer whose feature is the class token after the final norm."""

    def __init__(self, shape: ImageShape) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(shape.patch, shape.width)
        self.cls_token = nn.Parameter(torch.empty(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + (shape.size // shape.patch) ** 2, shape.width))
        self.blocks = nn.Sequential(
            *(
                Block(shape.width, shape.heads, shape.hidden, qkv_bias=True, epsilon=_TIMM_EPSILON)
                for _ in range(shape.depth)
            )
        )
        self.norm = nn.LayerNorm(shape.width, eps=_TIMM_EPSILON)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the features `(B, D)` of pictures `(B, 3, size, size)`."""
        patches = self.patch_embed(pixels)
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1) + self.pos_embed
        features: Tensor = self.norm(self.blocks(tokens)[:, 0])
        return features


class PatchEmbedding(nn.Module):
    """A picture's patches as tokens, row by row."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn pictures `(B, 3, H, W)` into tokens `(B, T, D)`."""
        patches: Tensor = self.proj(pixels)
        return patches.flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class TextShape:
    """The sizes of the text tower; the defaults are those of the published file.

    Attributes:
        vocabulary: how many tokens there are; the last two are the start and the end of a text.
        context: the greatest length L of the token ids.
        width: D of the tokens.
        depth: blocks.
        heads: attention heads.
        hidden: inner width of the blocks' networks.
        embedding: width E of the embeddings.
    """

    vocabulary: int = 49408
    context: int = 77
    width: int = 512
    depth: int = 12
    heads: int = 8
    hidden: int = 2048
    embedding: int = 512


class TextTower(nn.Module):
    """CLIP's text transformer: the keys `token_embedding.*` to `text_projection`, which have no prefix in the file."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embedding = nn.Embedding(
            shape.vocabulary, shape.width, _weight=torch.empty(shape.vocabulary, shape.width)
        )
        self.positional_embedding = nn.Parameter(torch.empty(shape.context, shape.width))
        self.transformer = TextTransformer(shape)
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
        tokens = self.transformer(tokens)
        ends = tokens[torch.arange(len(tokens), device=tokens.device), token_ids.argmax(dim=1)]
        features: Tensor = self.ln_final(ends)
        return features @ self.text_projection


class TextTransformer(nn.Module):
    """The blocks of the text tower."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(TextBlock(shape) for _ in range(shape.depth)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Carry tokens `(B, L, D)` through all blocks."""
        out: Tensor = self.resblocks(tokens)
        return out


class TextBlock(nn.Module):
    """A transformer block that normalises first, under the names of CLIP."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.width)
        self.attn = CausalAttention(shape.width, shape.heads)
        self.ln_2 = nn.LayerNorm(shape.width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(shape.width, shape.hidden),
                gelu=QuickGELU(),
                c_proj=nn.Linear(shape.hidden, shape.width),
            )
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Carry tokens `(B, L, D)` through the block."""
        tokens = tokens + self.attn(self.ln_1(tokens))
        return tokens + self.mlp(self.ln_2(tokens))


class CausalAttention(nn.Module):
    """Self-attention over the tokens so far, under the names of `torch.nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Let tokens `(B, L, D)` attend to those before them."""
        qkv = nn.functional.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        attended: Tensor = self.out_proj(attend(qkv, self.heads, causal=True))
        return attended


class QuickGELU(nn.Module):
    """`x sigmoid(1.702 x)`: what CLIP was trained with in place of the exact GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to every element."""
        return x * torch.sigmoid(1.702 * x)

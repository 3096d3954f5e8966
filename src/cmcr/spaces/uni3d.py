"""Uni3D as a space of point clouds (Zhou et al., 2023, MIT): the base and the large file of BAAI.

A plain transformer over groups of points whose blocks are those of EVA-02 (Fang et al., 2023). The published model also
holds EVA-02's own patches, positions, class token and classes, which no point cloud passes through: they are left out. So
are the rotary positions of EVA-02, which Uni3D never hands to its blocks.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from cmcr.engine.device import choose_device
from cmcr.spaces.points.groups import UpAxis
from cmcr.spaces.points.space import PointCloudSpace
from cmcr.spaces.points.towers import GroupTokens, TowerShape, attend
from cmcr.spaces.points.weights import PublishedFile, Shapes, shape_of

_NUM_POINTS = 10_000
_CHANNELS = 6
_CORE = 1e-3  # of the compiled farthest point sampling that the published encoders were trained with
_EPSILON = 1e-6


class Uni3dSpace(PointCloudSpace):
    """Uni3D (a `Space` of point clouds in the space of EVA-CLIP-E), from a published file, or its tensors as safetensors.

    The file of the base model has 12 blocks and embeddings of 1024 numbers, that of the large one 24 blocks; sizes are read
    from the weights. Clouds are turned so that y is up, thinned to `num_points` evenly spaced in their order, centred on
    the mean, scaled to a largest radius of 1; then groups around centres found by farthest point sampling from point 0.
    Colours are 0 to 1; a cloud that has none is given 0.4, the grey that the published training shows in place of colours
    half of the time, so that coordinates alone are in its domain.

    Args:
        model: path to the file.
        device: where to compute; None takes a GPU if there is one.
        num_points: the most points of a cloud to use; None is what the published files were trained with, 10000. Smaller
            clouds are used as they are.
        up_axis: the axis of your clouds that points up, `"x"`, `"y"` or `"z"`.
        num_group: groups per cloud; the published files have 512.
        group_size: points per group; the published files have 64.

    Raises:
        ConfigError: a setting out of range.
        ArtefactNotFoundError, FormatError, ReadError: the weights are missing, not those of such a file, or unreadable.
        DeviceError: a device that this machine does not have.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str | None = None,
        num_points: int | None = None,
        up_axis: UpAxis = "y",
        num_group: int = 512,
        group_size: int = 64,
    ) -> None:
        networks, self.temperature = UNI3D_FILE.open(Path(model))
        super().__init__(
            "uni3d",
            networks,
            choose_device(device or "auto"),
            channels=_CHANNELS,
            trained_points=_NUM_POINTS,
            num_points=num_points,
            up_axis=up_axis,
            num_group=num_group,
            group_size=group_size,
            core=_CORE,
        )


class Uni3dTower(nn.Module):
    """The published point encoder: the keys `point_encoder.*`.

    Args:
        shape: of the transformer over groups.
        group_width: width of a group's features before they become a token.
    """

    def __init__(self, shape: TowerShape, *, group_width: int = 512) -> None:
        super().__init__()
        self.shape = shape
        self.point_encoder = _PointEncoder(shape, group_width)

    def forward(self, neighborhoods: Tensor, centers: Tensor) -> Tensor:
        """Embed clouds.

        Args:
            neighborhoods: `(B, G, S, 6)`, coordinates relative to the centre of their group, and colours.
            centers: `(B, G, 3)`.

        Returns:
            `(B, E)`, not normalised.
        """
        rows: Tensor = self.point_encoder(neighborhoods, centers)
        return rows


class _PointEncoder(GroupTokens):
    """The transformer over groups: its class token, normalised, is projected into the space."""

    def __init__(self, shape: TowerShape, group_width: int) -> None:
        super().__init__(shape.width, _CHANNELS, group_width)
        self.encoder2trans = nn.Linear(group_width, shape.width)
        self.trans2embed = nn.Linear(shape.width, shape.embedding)
        blocks = nn.ModuleList([_Block(shape) for _ in range(shape.depth)])
        self.visual = nn.ModuleDict({"blocks": blocks, "fc_norm": nn.LayerNorm(shape.width, eps=_EPSILON)})

    def forward(self, neighborhoods: Tensor, centers: Tensor) -> Tensor:
        tokens, positions = self.tokens(neighborhoods, centers, self.encoder2trans)
        tokens = tokens + positions
        for block in self.visual["blocks"].children():
            tokens = block(tokens)
        rows: Tensor = self.trans2embed(self.visual["fc_norm"](tokens[:, 0]))
        return rows


class _Block(nn.Module):
    """A block of EVA-02 on tokens `(B, T, D)`: it normalises first; its network is a SwiGLU with a norm inside."""

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        width, hidden = shape.width, shape.hidden
        self.heads = shape.heads
        self.norm1 = nn.LayerNorm(width, eps=_EPSILON)
        self.attn = nn.ModuleDict(
            {
                "q_proj": nn.Linear(width, width),
                "k_proj": nn.Linear(width, width, bias=False),
                "v_proj": nn.Linear(width, width),
                "proj": nn.Linear(width, width),
            }
        )
        self.norm2 = nn.LayerNorm(width, eps=_EPSILON)
        self.mlp = nn.ModuleDict(
            {
                "fc1_g": nn.Linear(width, hidden),
                "fc1_x": nn.Linear(width, hidden),
                "norm": nn.LayerNorm(hidden, eps=_EPSILON),
                "fc2": nn.Linear(hidden, width),
            }
        )

    def forward(self, tokens: Tensor) -> Tensor:
        seen = self.norm1(tokens)
        projected = (self.attn[name](seen) for name in ("q_proj", "k_proj", "v_proj"))
        tokens = tokens + self.attn["proj"](attend(*projected, heads=self.heads))
        seen = self.norm2(tokens)
        gated = F.silu(self.mlp["fc1_g"](seen)) * self.mlp["fc1_x"](seen)
        out: Tensor = tokens + self.mlp["fc2"](self.mlp["norm"](gated))
        return out


def _tower(shapes: Shapes) -> Uni3dTower:
    width, group_width = shapes["point_encoder.encoder2trans.weight"]
    embedding, _ = shapes["point_encoder.trans2embed.weight"]
    shape = shape_of(shapes, width, embedding, "point_encoder.visual.blocks", "fc1_g")
    return Uni3dTower(shape, group_width=group_width)


_VISUAL = "point_encoder.visual."
UNI3D_FILE = PublishedFile(
    "Uni3D",
    fetch="Fetch modelzoo/uni3d-b/model.pt or modelzoo/uni3d-l/model.pt of BAAI/Uni3D (see "
    "https://github.com/baaivision/Uni3D), whose blocks this encoder has, and give the path to it.",
    unused=("logit_scale", *(_VISUAL + name for name in ("cls_token", "pos_embed", "patch_embed.", "head."))),
    builders={"point_cloud": _tower},
)

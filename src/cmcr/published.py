"""The published C-MCR projector files, turned into a `Connection` without running any code from them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cmcr.connection.connection import ConnectedSpace, Connection
from cmcr.connection.methods import settings_of
from cmcr.connection.projectors import Projector
from cmcr.connection.settings import CLAP_CLIP_SHAPE, ULIP_CLIP_SHAPE, ProjectorShape
from cmcr.errors import FormatError
from cmcr.spaces.hub import read_published_tensors


class PublishedFile(NamedTuple):
    """One kind of published file: its layers by their prefixes, and the spaces whose projectors are Head_A and Head_B."""

    shape: ProjectorShape
    layers: tuple[str, ...]
    head_a: ConnectedSpace
    head_b: ConnectedSpace
    overlap: str
    method: str


# The two files name their heads the other way round: Head_A is CLAP in one and CLIP in the other.
CLAP_CLIP = PublishedFile(
    shape=CLAP_CLIP_SHAPE,
    layers=("net1", "net2"),
    head_a=ConnectedSpace("clap", ("text", "audio"), 512),
    head_b=ConnectedSpace("clip", ("text", "image"), 512),
    overlap="text",
    method="c-mcr-published",
)
ULIP_CLIP = PublishedFile(
    shape=ULIP_CLIP_SHAPE,
    layers=("net",),
    head_a=ConnectedSpace("clip", ("image", "text"), 512),
    head_b=ConnectedSpace("ulip", ("image", "point_cloud", "text"), 512),
    overlap="image",
    method="c-mcr-published-ulip",
)

_PARTS = {"0": "linears", "1": "norms"}


def import_published(path: str | Path) -> Connection:
    """Read a published CLAP-CLIP or ULIP-CLIP projector file (`.pt`).

    The file is unpickled with `weights_only=True`: tensors and nothing else. Which of the two it is shows in its keys.
    How it was trained is known only from the paper, so `settings` are those of the published recipe; seed, number of
    items and history are unknown (0 and empty). CLIP is ViT-B/32 (`openai/clip-vit-base-patch32`), CLAP is
    `laion/clap-htsat-fused`, ULIP is ULIP-2 PointBERT, all 512 wide.

    Args:
        path: the file.

    Returns:
        The connection. `save` it to keep it as safetensors.

    Raises:
        ArtefactNotFoundError: no such file.
        ReadError: the system refuses to read it.
        FormatError: not such a file: other keys or shapes, or a pickle that holds more than tensors.
    """
    path = Path(path)
    weights = read_published_tensors(path, "Expected a projector file of C-MCR, such as ulip_clip.pt.")
    kind = CLAP_CLIP if any(".net1." in key for key in weights) else ULIP_CLIP
    projectors = {
        space.name: _projector(path, weights, head, kind)
        for head, space in (("Head_A", kind.head_a), ("Head_B", kind.head_b))
    }
    spaces = sorted((kind.head_a, kind.head_b), key=lambda space: space.name != "clip")
    return Connection(
        spaces=(spaces[0], spaces[1]),
        projectors=projectors,
        overlap=kind.overlap,
        method=kind.method,
        settings=settings_of(kind.method),
        seed=0,
        overlap_rows=0,
    )


def _projector(path: Path, weights: dict[str, Tensor], head: str, kind: PublishedFile) -> Projector:
    """Give one head our names and load it strictly."""
    ours: dict[str, Tensor] = {}
    for depth, layer in enumerate(kind.layers):
        for number, part in _PARTS.items():
            prefix = f"{head}.{layer}.{number}."
            for key, value in weights.items():
                if key.startswith(prefix):
                    ours[f"{part}.{depth}.{key.removeprefix(prefix)}"] = value
    with torch.device("meta"):
        projector = Projector(512, kind.shape)
    try:
        projector.load_state_dict(ours, strict=True, assign=True)
    except RuntimeError as error:
        raise FormatError(
            f"{path}: {head} is not a published projector of {kind.head_a.name} and {kind.head_b.name}: "
            + " ".join(str(error).split())
        ) from error
    return projector.float().eval().requires_grad_(False)

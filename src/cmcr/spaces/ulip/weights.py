"""The published ULIP files, turned into towers strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cmcr.errors import FormatError
from cmcr.spaces.hub import read_published_tensors
from cmcr.spaces.ulip.towers import ImageTower, PointCloudTower, TextTower, TowerShape

Shapes = Mapping[str, tuple[int, ...]]  # of tensors by their published names

_HEAD_WIDTH = 64  # of all three published towers; heads leave no trace in the shapes of the tensors
_IMAGE = ("visual.", "image_projection")
_TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
_NOT_OURS = ("logit_scale", "open_clip_model.")  # the temperature; the coloured file's copy of another model
_FETCH = (
    "Fetch a PointBERT file of ULIP-2, such as pointbert_ULIP-2.pt (see https://github.com/salesforce/ULIP), and give "
    "the path to it."
)


def open_towers(path: Path) -> dict[str, Any]:
    """Build the towers whose weights are in a file, with the sizes that the weights have, and load them strictly.

    Args:
        path: a published `.pt` file, or its tensors by the same names as safetensors.

    Returns:
        Float32 networks for inference, on the CPU, by modality: "point_cloud", and "image" and "text" if they are there.

    Raises:
        ArtefactNotFoundError, ReadError: as `cmcr.spaces.hub.read_published_tensors`.
        FormatError: likewise, or no PointBERT, or missing, unexpected, misshapen or not finite tensors.
    """
    tensors = {
        # Some files hold half precision; the count of batches that normalisation keeps stays a whole number.
        name: value.float() if value.is_floating_point() else value
        for name, value in read_published_tensors(path, _FETCH).items()
        if not name.startswith(_NOT_OURS)
    }
    bad = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise FormatError(f"{path}: {len(bad)} tensors hold NaN or infinity, the first is {bad[0]}. {_FETCH}")
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    there = {"point_cloud", *map(_tower_of, shapes)}
    try:
        with torch.device("meta"):  # no random initialisation, which would move the caller's random state
            towers = {modality: build(shapes) for modality, build in _BUILDERS.items() if modality in there}
        networks = nn.ModuleDict(towers)
        networks.load_state_dict({f"{_tower_of(name)}.{name}": value for name, value in tensors.items()}, assign=True)
        networks.eval().requires_grad_(False)
    except KeyError as error:
        raise FormatError(f"{path}: not a published ULIP file, missing {error}. {_FETCH}") from error
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise FormatError(f"{path}: its tensors are not those of a published ULIP file: {error}. {_FETCH}") from error
    widths = {modality: tower.shape.embedding for modality, tower in towers.items()}
    if len(set(widths.values())) > 1:
        raise FormatError(f"{path}: the projections lead to different widths, {widths}; one space has one.")
    return towers


def _tower_of(name: str) -> str:
    return "image" if name.startswith(_IMAGE) else "text" if name.startswith(_TEXT) else "point_cloud"


def _point_cloud_tower(shapes: Shapes) -> PointCloudTower:
    _, channels, _ = shapes["point_encoder.encoder.first_conv.0.weight"]
    if channels not in (3, 6):
        raise ValueError(f"expected points of 3 channels (xyz) or 6 (xyz and rgb), got {channels}")
    width, group_width = shapes["point_encoder.reduce_dim.weight"]
    shape = _shape(shapes, width, "point_encoder.blocks.blocks", "fc1", "pc_projection")
    return PointCloudTower(shape, channels=channels, group_width=group_width)


def _image_tower(shapes: Shapes) -> ImageTower:
    width, _, patch, _ = shapes["visual.patch_embed.proj.weight"]
    _, tokens, _ = shapes["visual.pos_embed"]
    shape = _shape(shapes, width, "visual.blocks", "fc1", "image_projection")
    return ImageTower(shape, size=round((tokens - 1) ** 0.5) * patch, patch=patch)


def _text_tower(shapes: Shapes) -> TextTower:
    vocabulary, width = shapes["token_embedding.weight"]
    context, _ = shapes["positional_embedding"]
    shape = _shape(shapes, width, "transformer.resblocks", "c_fc", "text_projection")
    return TextTower(shape, vocabulary=vocabulary, context=context)


def _shape(shapes: Shapes, width: int, blocks: str, hidden_layer: str, projection: str) -> TowerShape:
    """Read the sizes of a transformer from the shapes of its first block, of its projection, and its blocks' number."""
    if not width or width % _HEAD_WIDTH:
        raise ValueError(
            f"expected a width that is a multiple of {_HEAD_WIDTH}, the width of an attention head in the published "
            f"files, got {width}"
        )
    hidden, _ = shapes[f"{blocks}.0.mlp.{hidden_layer}.weight"]
    _, embedding = shapes[projection]
    numbered = re.compile(rf"{re.escape(blocks)}\.(\d+)\.")
    depth = len({found[1] for name in shapes if (found := numbered.match(name))})
    return TowerShape(width, depth, width // _HEAD_WIDTH, hidden, embedding)


_BUILDERS: dict[str, Callable[[Shapes], Any]] = {
    "point_cloud": _point_cloud_tower,
    "image": _image_tower,
    "text": _text_tower,
}

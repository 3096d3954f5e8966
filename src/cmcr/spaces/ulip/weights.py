"""The published ULIP files: which tensors belong to which tower, and the sizes that they tell."""

from __future__ import annotations

from cmcr.spaces.points.weights import PublishedFile, Shapes, shape_of
from cmcr.spaces.ulip.towers import ImageTower, PointCloudTower, TextTower

_IMAGE = ("visual.", "image_projection")
_TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")


def _modality_of(name: str) -> str:
    return "image" if name.startswith(_IMAGE) else "text" if name.startswith(_TEXT) else "point_cloud"


def _point_cloud_tower(shapes: Shapes) -> PointCloudTower:
    _, channels, _ = shapes["point_encoder.encoder.first_conv.0.weight"]
    if channels not in (3, 6):
        raise ValueError(f"expected points of 3 channels (xyz) or 6 (xyz and rgb), got {channels}")
    width, group_width = shapes["point_encoder.reduce_dim.weight"]
    _, embedding = shapes["pc_projection"]
    shape = shape_of(shapes, width, embedding, "point_encoder.blocks.blocks", "fc1")
    return PointCloudTower(shape, channels=channels, group_width=group_width)


def _image_tower(shapes: Shapes) -> ImageTower:
    width, _, patch, _ = shapes["visual.patch_embed.proj.weight"]
    _, tokens, _ = shapes["visual.pos_embed"]
    _, embedding = shapes["image_projection"]
    shape = shape_of(shapes, width, embedding, "visual.blocks", "fc1")
    return ImageTower(shape, size=round((tokens - 1) ** 0.5) * patch, patch=patch)


def _text_tower(shapes: Shapes) -> TextTower:
    vocabulary, width = shapes["token_embedding.weight"]
    context, _ = shapes["positional_embedding"]
    _, embedding = shapes["text_projection"]
    shape = shape_of(shapes, width, embedding, "transformer.resblocks", "c_fc")
    return TextTower(shape, vocabulary=vocabulary, context=context)


ULIP_FILE = PublishedFile(
    "ULIP",
    fetch="Fetch a PointBERT file of ULIP-2, such as pointbert_ULIP-2.pt (see https://github.com/salesforce/ULIP), and "
    "give the path to it.",
    unused=("logit_scale", "open_clip_model."),  # the temperature; the coloured file's copy of another model
    builders={"point_cloud": _point_cloud_tower, "image": _image_tower, "text": _text_tower},
    modality_of=_modality_of,
)

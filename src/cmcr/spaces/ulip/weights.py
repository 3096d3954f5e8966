"""The published ULIP files: turned into towers strictly, converted to safetensors."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from cmcr.errors import FormatError, WriteError
from cmcr.files import write_bytes_whole
from cmcr.spaces.hub import read_published_tensors
from cmcr.spaces.ulip.towers import ImageTower, PointCloudTower, TextTower, TowerShape

_HEAD_WIDTH = 64  # of all three published towers; heads leave no trace in the shapes of the tensors
_IMAGE = ("visual.", "image_projection")
_TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
_NOT_OURS = ("logit_scale", "open_clip_model.")  # the temperature; the coloured file's copy of another model
_FETCH = (
    "Fetch a PointBERT file of ULIP-2, such as pointbert_ULIP-2.pt (see https://github.com/salesforce/ULIP), and give "
    "the path to it."
)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of the towers from a published `.pt` file or from what `convert` wrote.

    Raises:
        ArtefactNotFoundError, FormatError, ReadError: as `cmcr.spaces.hub.read_published_tensors`.
    """
    tensors = read_published_tensors(path, _FETCH)
    return {name: value for name, value in tensors.items() if not name.startswith(_NOT_OURS)}


def convert(path: str | Path, out: str | Path) -> Path:
    """Write the towers of a published file as safetensors, which opens faster and cannot hold code.

    The embeddings and the fingerprint of the space stay the same. Training state and copies of other models are left out.

    Args:
        path: the published file.
        out: where to write; must end in `.safetensors` and not exist.

    Returns:
        `out`.

    Raises:
        ArtefactNotFoundError, FormatError, ReadError: as `read_tensors` and `build_towers`.
        WriteError: something is at `out` already, no permission, disk full.
    """
    source, target = Path(path), Path(out)
    if target.suffix != ".safetensors":
        raise WriteError(errno.EINVAL, "expected a name that ends in .safetensors", str(target))
    if os.path.lexists(target):
        raise WriteError(errno.EEXIST, "something is there already; choose another path", str(target))
    tensors = read_tensors(source)
    build_towers(tensors, str(source))
    # Copies: safetensors refuses tensors that share memory.
    copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    try:
        write_bytes_whole(target, save(copies, metadata={"format": "pt"}))
    except OSError as error:
        raise WriteError(
            error.errno or errno.EIO, f"could not write ({error.strerror}); nothing half-written was left", str(target)
        ) from error
    return target


class UlipTowers(nn.Module):
    """The towers of a file; `image` and `text` are None where the file has none."""

    def __init__(self, point_cloud: PointCloudTower, image: ImageTower | None, text: TextTower | None) -> None:
        super().__init__()
        self.point_cloud = point_cloud
        self.image = image
        self.text = text

    def widths(self) -> dict[str, int]:
        """Width E of the embeddings by modality, of the towers that are there."""
        towers = {"point_cloud": self.point_cloud, "image": self.image, "text": self.text}
        return {modality: tower.shape.embedding for modality, tower in towers.items() if tower is not None}


def build_towers(tensors: Mapping[str, Tensor], source: str) -> UlipTowers:
    """Build the towers whose weights are there, with the sizes that the weights have, and load them strictly.

    Args:
        tensors: by published name.
        source: names them in a message.

    Returns:
        Float32 networks for inference, on the CPU.

    Raises:
        FormatError: no PointBERT, or missing, unexpected, misshapen or not finite tensors.
    """
    bad = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if bad:
        raise FormatError(f"{source}: {len(bad)} tensors hold NaN or infinity, the first is {bad[0]}. {_FETCH}")
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    try:
        with torch.device("meta"):  # no random initialisation, which would move the caller's random state
            towers = UlipTowers(
                _point_cloud_tower(shapes),
                _image_tower(shapes) if any(name.startswith(_IMAGE) for name in shapes) else None,
                _text_tower(shapes) if any(name.startswith(_TEXT) for name in shapes) else None,
            )
        # Some files hold half precision; the count of batches that normalisation keeps stays a whole number.
        state = {
            f"{_tower_of(name)}.{name}": value.float() if value.is_floating_point() else value
            for name, value in tensors.items()
        }
        towers.load_state_dict(state, assign=True)
    except KeyError as error:
        raise FormatError(f"{source}: not a published ULIP file, missing {error}. {_FETCH}") from error
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise FormatError(f"{source}: its tensors are not those of a published ULIP file: {error}. {_FETCH}") from error
    if len(set(towers.widths().values())) > 1:
        raise FormatError(f"{source}: the projections lead to different widths, {towers.widths()}; one space has one.")
    return towers.eval().requires_grad_(False)


def _tower_of(name: str) -> str:
    return "image" if name.startswith(_IMAGE) else "text" if name.startswith(_TEXT) else "point_cloud"


def _point_cloud_tower(shapes: Mapping[str, tuple[int, ...]]) -> PointCloudTower:
    _, channels, _ = shapes["point_encoder.encoder.first_conv.0.weight"]
    if channels not in (3, 6):
        raise ValueError(f"expected points of 3 channels (xyz) or 6 (xyz and rgb), got {channels}")
    width, group_width = shapes["point_encoder.reduce_dim.weight"]
    shape = _shape(shapes, width, "point_encoder.blocks.blocks", "fc1", "pc_projection")
    return PointCloudTower(shape, channels=channels, group_width=group_width)


def _image_tower(shapes: Mapping[str, tuple[int, ...]]) -> ImageTower:
    width, _, patch, _ = shapes["visual.patch_embed.proj.weight"]
    _, tokens, _ = shapes["visual.pos_embed"]
    shape = _shape(shapes, width, "visual.blocks", "fc1", "image_projection")
    return ImageTower(shape, size=round((tokens - 1) ** 0.5) * patch, patch=patch)


def _text_tower(shapes: Mapping[str, tuple[int, ...]]) -> TextTower:
    vocabulary, width = shapes["token_embedding.weight"]
    context, _ = shapes["positional_embedding"]
    shape = _shape(shapes, width, "transformer.resblocks", "c_fc", "text_projection")
    return TextTower(shape, vocabulary=vocabulary, context=context)


def _shape(
    shapes: Mapping[str, tuple[int, ...]], width: int, blocks: str, hidden_layer: str, projection: str
) -> TowerShape:
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

"""The published ULIP files: read without running code, turned into towers strictly, converted to safetensors."""

from __future__ import annotations

import argparse
import errno
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cmcr.errors import ArtefactNotFoundError, FormatError, ReadError, WriteError
from cmcr.spaces.ulip.pointbert import PointBertShape, PointCloudTower
from cmcr.spaces.ulip.towers import ImageShape, ImageTower, TextShape, TextTower

_HEAD_WIDTH = 64  # of all three published towers; heads leave no trace in the shapes of the tensors
_IMAGE = ("visual.", "image_projection")
_TEXT = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")
_NOT_OURS = ("logit_scale", "open_clip_model.")  # the temperature; the coloured file's copy of another model
_LISTED = 8  # names in a message
_FETCH = (
    "Fetch a PointBERT file of ULIP-2, such as pointbert_ULIP-2.pt (see https://github.com/salesforce/ULIP), and give "
    "the path to it."
)


class _Discarded:
    """Stands in for numpy's numbers in a file (an accuracy, an optimiser's state): takes anything, does nothing."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


_NUMPY = ("core.multiarray.scalar", "core.multiarray._reconstruct", "dtype", "ndarray")
_HARMLESS: list[Any] = [
    argparse.Namespace,
    *((_Discarded, f"numpy.{name}") for name in _NUMPY),
    *((_Discarded, f"numpy._{name}") for name in _NUMPY if name.startswith("core.")),
]
"""What a published file may hold beside tensors; numpy's own constructors are never called."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a published `.pt` file or of a safetensors file, by name, without the prefix `module.`.

    A `.pt` file is read by torch's restricted reader, which builds tensors, plain containers and the `argparse.Namespace`
    that the published files hold; anything else in it is refused, so no file can run code.

    Raises:
        ArtefactNotFoundError: there is no such file.
        FormatError: damaged, another kind of file, or one that holds what is never opened.
        ReadError: the system refuses to read it.
    """
    if not path.is_file():
        raise ArtefactNotFoundError(errno.ENOENT, f"there are no ULIP weights here. {_FETCH}", str(path))
    try:
        held = load_file(path) if path.suffix == ".safetensors" else _load_restricted(path)
    except OSError as error:
        raise ReadError(error.errno or errno.EIO, f"could not read ({error.strerror or error})", str(path)) from error
    except SafetensorError as error:
        raise FormatError(f"{path}: not a whole safetensors file ({error}). Fetch or convert it again.") from error
    state = held.get("state_dict", held) if isinstance(held, Mapping) else {}
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        raise FormatError(f"{path}: expected a file with tensors by name, found none. {_FETCH}")
    return {
        str(name).removeprefix("module."): value.detach() for name, value in state.items() if isinstance(value, Tensor)
    }


def _load_restricted(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        # Not torch's own words: they advise to open the file with the restriction lifted.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it names {found[1]}" if found else type(error).__name__
        raise FormatError(
            f"{path}: not a whole file of tensors and plain settings ({reason}). Files that would run code are never "
            f"opened. {_FETCH}"
        ) from error


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
    tensors = {name: value for name, value in read_tensors(source).items() if not name.startswith(_NOT_OURS)}
    build_towers(tensors, str(source))
    part = target.parent / f".{target.name}.{uuid.uuid4().hex}.part"
    try:
        # Copies: safetensors refuses tensors that share memory.
        save_file(
            {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()},
            part,
            metadata={"format": "pt"},
        )
        part.replace(target)
    except (OSError, SafetensorError) as error:
        raise WriteError(
            getattr(error, "errno", None) or errno.EIO,
            f"could not write ({error}); nothing half-written was left",
            str(target),
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


class UlipTowers(nn.Module):
    """The towers of a file; `image` and `text` are None where the file has none."""

    def __init__(self, point_cloud: PointCloudTower, image: ImageTower | None, text: TextTower | None) -> None:
        super().__init__()
        self.point_cloud = point_cloud
        self.image = image
        self.text = text

    def by_modality(self) -> dict[str, PointCloudTower | ImageTower | TextTower]:
        """Those that are there."""
        towers = {"point_cloud": self.point_cloud, "image": self.image, "text": self.text}
        return {modality: tower for modality, tower in towers.items() if tower is not None}


def build_towers(tensors: Mapping[str, Tensor], source: str) -> UlipTowers:
    """Build the towers whose weights are there, with the sizes that the weights have.

    Args:
        tensors: by published name.
        source: what to call them in a message.

    Returns:
        Float32 networks for inference, on the CPU.

    Raises:
        FormatError: no PointBERT, or missing, unexpected, misshapen or not finite tensors: all of them are listed.
    """
    sizes = _Sizes(tensors, source)
    with torch.device("meta"):  # no random initialisation, which would move the caller's random state
        towers = UlipTowers(
            PointCloudTower(_point_cloud_shape(sizes)),
            ImageTower(_image_shape(sizes)) if sizes.any_under(_IMAGE) else None,
            TextTower(_text_shape(sizes)) if sizes.any_under(_TEXT) else None,
        )
    widths = {modality: tower.shape.embedding for modality, tower in towers.by_modality().items()}
    if len(set(widths.values())) > 1:
        raise FormatError(f"{source}: the projections lead to different widths, {widths}; one space has one width.")
    _load_strictly(towers, tensors, source)
    return towers.eval().requires_grad_(False)


class _Sizes:
    """The sizes of a file's tensors; a missing one says what is missing."""

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        self._shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        self.source = source

    def of(self, name: str, axes: int) -> tuple[int, ...]:
        """Give the shape of a tensor that must have so many axes."""
        if name not in self._shapes:
            raise FormatError(
                f"{self.source}: missing {name}; it holds {len(self._shapes)} tensors: {_some(self._shapes)}. {_FETCH}"
            )
        shape = self._shapes[name]
        if len(shape) != axes or not all(shape):
            raise FormatError(f"{self.source}: {name}: expected {axes} axes, none of length 0, got {shape}. {_FETCH}")
        return shape

    def any_under(self, prefixes: tuple[str, ...]) -> bool:
        """Tell whether any tensor's name starts so."""
        return any(name.startswith(prefixes) for name in self._shapes)

    def depth(self, prefix: str) -> int:
        """Count the blocks `prefix.0.`, `prefix.1.` and so on that have tensors."""
        numbered = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
        return len({found[1] for name in self._shapes if (found := numbered.match(name))})

    def heads(self, name: str, width: int) -> int:
        """Count the attention heads of a tower."""
        if width % _HEAD_WIDTH:
            raise FormatError(
                f"{self.source}: {name}: expected a width that is a multiple of {_HEAD_WIDTH}, the width of an attention "
                f"head in the published files, got {width}."
            )
        return width // _HEAD_WIDTH


def _point_cloud_shape(sizes: _Sizes) -> PointBertShape:
    channels = sizes.of("point_encoder.encoder.first_conv.0.weight", 3)[1]
    if channels not in (3, 6):
        raise FormatError(f"{sizes.source}: expected points of 3 channels (xyz) or 6 (xyz and rgb), got {channels}.")
    width, group_width = sizes.of("point_encoder.reduce_dim.weight", 2)
    return PointBertShape(
        channels=channels,
        width=width,
        depth=sizes.depth("point_encoder.blocks.blocks"),
        heads=sizes.heads("point_encoder", width),
        group_width=group_width,
        hidden=sizes.of("point_encoder.blocks.blocks.0.mlp.fc1.weight", 2)[0],
        embedding=sizes.of("pc_projection", 2)[1],
    )


def _image_shape(sizes: _Sizes) -> ImageShape:
    width, _, patch, _ = sizes.of("visual.patch_embed.proj.weight", 4)
    side = round((sizes.of("visual.pos_embed", 3)[1] - 1) ** 0.5)
    return ImageShape(
        size=side * patch,
        patch=patch,
        width=width,
        depth=sizes.depth("visual.blocks"),
        heads=sizes.heads("visual", width),
        hidden=sizes.of("visual.blocks.0.mlp.fc1.weight", 2)[0],
        embedding=sizes.of("image_projection", 2)[1],
    )


def _text_shape(sizes: _Sizes) -> TextShape:
    vocabulary, width = sizes.of("token_embedding.weight", 2)
    return TextShape(
        vocabulary=vocabulary,
        context=sizes.of("positional_embedding", 2)[0],
        width=width,
        depth=sizes.depth("transformer.resblocks"),
        heads=sizes.heads("transformer", width),
        hidden=sizes.of("transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        embedding=sizes.of("text_projection", 2)[1],
    )


def _load_strictly(towers: UlipTowers, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give every tower its weights, after checking that names and shapes are exactly those expected."""
    parts = [(tower, tower.state_dict()) for tower in towers.by_modality().values()]
    expected = {name: value for _, state in parts for name, value in state.items()}
    given = {name: value for name, value in tensors.items() if not name.startswith(_NOT_OURS)}
    _refuse(
        {
            "missing": [name for name in expected if name not in given],
            "unexpected": [name for name in given if name not in expected],
            "of another shape": [
                f"{name} (expected {tuple(value.shape)}, got {tuple(given[name].shape)})"
                for name, value in expected.items()
                if name in given and given[name].shape != value.shape
            ],
            "not finite": [name for name, value in given.items() if not torch.isfinite(value).all()],
        },
        source,
    )
    for tower, state in parts:
        # Some files hold half precision; the count of batches that normalisation keeps stays a whole number.
        tower.load_state_dict({name: given[name].to(value.dtype) for name, value in state.items()}, assign=True)


def _refuse(faults: Mapping[str, list[str]], source: str) -> None:
    told = [f"{len(names)} {fault}: {_some(names)}" for fault, names in faults.items() if names]
    if told:
        raise FormatError(f"{source}: its tensors are not those of a published ULIP file. {'; '.join(told)}. {_FETCH}")


def _some(names: Any) -> str:
    """List the first names."""
    shown = [str(name) for name in names]
    more = f" and {len(shown) - _LISTED} more" if len(shown) > _LISTED else ""
    return ", ".join(shown[:_LISTED]) + more

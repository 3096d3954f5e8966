"""Pictures for the dual encoders of transformers: through the model's own image processor, whole or patch by patch.

Pictures are turned upright by their EXIF orientation and composited on white where they are transparent (as transformers 5
does); the image processor does the rest. Shapes: `B` batch, `T` patches, `D` width of the space, `H` and `W` pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cmcr.data.images import read_image, to_rgb
from cmcr.errors import ConfigError
from cmcr.spaces.hub import Snapshot, open_image_processor
from cmcr.spaces.tower import Tower

Prepared = dict[str, NDArray[Any]]  # by the name that the model gives it, such as "pixel_values": `(3, H, W)`

_SETTINGS = (
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize image_mean image_std"
).split()
_SETTINGS_OF_FEW = ("max_num_patches", "patch_size", "rescale_offset", "include_top")  # SigLIP 2 and ALIGN


class Pictures:
    """What prepares and embeds the pictures of one model.

    Attributes:
        settings: those of the image processor that decide which numbers a picture becomes, the same for every version of
            transformers.
        processor: of the model.
        patch_size: pixels of a patch of `patches`; None where the model has no patches in the joint space.
        probe: a picture that any model can embed.
    """

    probe = Image.new("RGB", (8, 8))

    def __init__(self, snapshot: Snapshot, model: Any) -> None:
        self._model = model
        self.processor = open_image_processor(snapshot)
        known = self.processor.to_dict()
        self.settings = {name: _plain(known.get(name)) for name in _SETTINGS}
        self.settings |= {name: known[name] for name in _SETTINGS_OF_FEW if name in known}
        self._project_patches = _PATCHES.get(model.config.model_type)
        self.patch_size: int | None = model.config.vision_config.patch_size if self._project_patches else None

    def prepare(self, item: Any, size: Mapping[str, int] | None = None) -> Prepared:
        """Read and prepare one picture; with a `size` in pixels it is resized to that, without a crop."""
        options = {} if size is None else {"size": dict(size), "do_resize": True, "do_center_crop": False}
        prepared = self.processor(images=to_rgb(read_image(item)), return_tensors="np", **options)
        return {name: np.asarray(values[0]) for name, values in prepared.items()}

    def embed(self, pictures: list[Prepared]) -> Tensor:
        """Embed prepared pictures: `(B, D)`, not normalised."""
        rows: Tensor = self._model.get_image_features(**self.batch(pictures)).pooler_output
        return rows

    def patches(self, size: int | tuple[int, int] | None, depth: int) -> tuple[Tower, tuple[int, int]]:
        """Give what embeds the patches of pictures, `depth` wide each, and their rows and columns.

        Raises:
            ConfigError: a size that is no multiple of the patch size, or a model without patches.
        """
        if self.patch_size is None or self._project_patches is None:
            raise ConfigError(f"a model of type {self._model.config.model_type} has no patches in the joint space.")
        height, width = self._chosen_size(size, self.patch_size)
        resized, project = None if size is None else {"height": height, "width": width}, self._project_patches
        rows, columns = height // self.patch_size, width // self.patch_size

        def embed(pictures: list[Prepared]) -> Tensor:
            features = project(self._model, self.batch(pictures)["pixel_values"]).float()
            return nn.functional.normalize(features, dim=-1).flatten(1)

        return Tower(rows * columns * depth, lambda item: self.prepare(item, resized), embed), (rows, columns)

    def batch(self, pictures: list[Prepared]) -> dict[str, Tensor]:
        """Put prepared pictures together as the model takes them, where it is."""
        model, batch = self._model, {}
        for name in pictures[0]:
            values = torch.from_numpy(np.stack([picture[name] for picture in pictures])).to(model.device)
            batch[name] = values.to(model.dtype) if values.is_floating_point() else values
        return batch

    def _chosen_size(self, size: int | tuple[int, int] | None, patch: int) -> tuple[int, int]:
        if size is None:
            edge = self._model.config.vision_config.image_size
            return edge, edge
        chosen = tuple(size) if isinstance(size, Sequence) else (size, size)
        whole = len(chosen) == 2 and all(isinstance(edge, int) and not isinstance(edge, bool) for edge in chosen)
        if not whole or any(edge < patch or edge % patch for edge in chosen):
            raise ConfigError(
                f"size: expected multiples of the {patch} pixels of a patch, (height, width), got {size!r}."
            )
        return chosen[0], chosen[1]


def _plain(setting: Any) -> Any:
    """Reduce a setting of an image processor to JSON, without the keys that only some versions write."""
    if isinstance(setting, Mapping):
        return {key: value for key, value in sorted(setting.items()) if value is not None}
    return list(setting) if isinstance(setting, tuple) else setting


def _clip_patches(model: Any, pixels: Tensor) -> Tensor:
    # As the class token, which comes first, becomes the embedding of the picture.
    hidden = model.vision_model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
    projected: Tensor = model.visual_projection(model.vision_model.post_layernorm(hidden))
    return projected


def _siglip_patches(model: Any, pixels: Tensor) -> Tensor:
    # SigLIP has no class token: a learned query attends to all patches. Here it attends to one patch at a time, so that a
    # picture of a single patch has the embedding of that patch. The paper says nothing of patches.
    hidden = model.vision_model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
    embedded: Tensor = model.vision_model.head(hidden.flatten(0, 1)[:, None])
    return embedded.reshape(hidden.shape)


def _tipsv2_patches(model: Any, pixels: Tensor) -> Tensor:
    # Its patches are trained to lie beside texts; two class tokens come first. It interpolates positions of itself.
    hidden: Tensor = model.vision_model(pixel_values=pixels).last_hidden_state
    return hidden[:, 1 + model.config.vision_config.num_register_tokens :]


_PATCHES = dict.fromkeys(("clip", "metaclip_2", "chinese_clip", "altclip"), _clip_patches) | {
    "siglip": _siglip_patches,
    "tipsv2": _tipsv2_patches,
}
"""By type of model, `(B, 3, H, W)` pixels -> `(B, T, D)`: its patches in the joint space, top row first."""

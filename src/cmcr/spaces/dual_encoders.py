"""Dual encoders of transformers: texts, and pictures or sounds, in one space; CLIP and SigLIP.

Model, image processor and tokenizer are those that the model's own files name. What no file says of a family is an
attribute of its class. Shapes: `B` batch, `T` patches, `D` width of the space, `H` and `W` pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cmcr.data.images import read_image, to_rgb
from cmcr.data.texts import read_text
from cmcr.engine.device import choose_device
from cmcr.errors import ConfigError, FormatError, SampleError
from cmcr.spaces.hub import (
    BPE_FILES,
    PROCESSOR,
    WEIGHTS,
    Snapshot,
    find_snapshot,
    fingerprint,
    import_library,
    open_model,
    open_processor,
    require_files,
    token_batch,
)
from cmcr.spaces.tower import Tower, TowerSpace, embed_all, listed

_LONGEST_EDGE = 16_384  # pixels of a resized picture; a strip of 1 x 100000 would otherwise take gigabytes
_PROCESSOR_SETTINGS = (
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize image_mean image_std"
).split()


class DualEncoderSpace(TowerSpace):
    """A published model that embeds texts and something else (a `Space`): see `ClipSpace`, `SiglipSpace`, `ClapSpace`.

    Texts must hold something besides white space. What is beyond the model's length is cut, with a warning.

    Args:
        model: a folder or the name of a repository on the hub; None is the default model of the family.
        revision: commit, tag or branch; None is the pinned commit where there is one for this model, else the main
            branch.
        device: where to compute: "auto", "cpu", "cuda", ...; None, as "auto", takes a GPU if there is one.
        dtype: "float32", "float16" or "bfloat16", of the weights; embeddings are float32 in any case.
        local_files_only: never fetch anything.

    Attributes:
        name: of the family.
        widths: width D by modality.
        fingerprint: changes whenever the weights or the preprocessing do, tokenizer included.
        source: the model that was asked for.
        revision: its commit, None for a folder that is no snapshot of the hub's cache.

    Raises:
        ArtefactNotFoundError: the files are neither here nor within reach; the message says what to fetch.
        FormatError: a model of another kind, or files that are missing or damaged.
        ConfigError: an unknown revision or dtype.
        DeviceError: a device that this machine does not have.
        MissingDependencyError: a library of the extra `encoders` is not installed.
    """

    modality: ClassVar[str]  # that is embedded beside text
    model_type: ClassVar[str]  # as in config.json
    pins: ClassVar[Mapping[str, str]]  # commits by model; the first is the default model
    rules: ClassVar[str]  # part of the fingerprint: raise it when this code or a decoder changes what the encoders see
    tokenizer_files: ClassVar[tuple[str, ...]] = BPE_FILES  # any of them will do
    text_length: ClassVar[int | None] = None  # the most tokens of a text; None is what the model has positions for
    pad_to_full: ClassVar[bool] = False  # pad texts to the full length, as some families were trained
    masked: ClassVar[bool] = True  # tell the model which tokens are padding
    libraries: ClassVar[Mapping[str, str]] = {}  # that its tokenizer needs besides, by module
    probes: ClassVar[tuple[str, ...]] = ("A photo of a cat, 1999!", "naïve café — 東京", "  two   spaces ", "it's")

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        local_files_only: bool = False,
    ) -> None:
        for module, library in self.libraries.items():
            import_library(module, library)
        chosen_device = choose_device(device or "auto")
        source = next(iter(self.pins)) if model is None else model
        if revision is None and not Path(source).is_dir():
            revision = self.pins.get(str(source))
        snapshot = find_snapshot(source, revision, local_files_only=local_files_only)
        config = open_processor(snapshot, "AutoConfig")
        if config.model_type != self.model_type:
            raise FormatError(f"{snapshot}: expected a model of type {self.model_type!r}, got {config.model_type!r}.")
        require_files(snapshot, WEIGHTS, PROCESSOR, self.tokenizer_files)
        self.source, self.revision = snapshot.source, snapshot.revision
        self._tokenizer = open_processor(snapshot, "AutoTokenizer")
        self._model = open_model(snapshot, "AutoModel", dtype)
        self._length = self.text_length or int(config.text_config.max_position_embeddings)
        # SigLIP projects nothing.
        width = int(getattr(config, "projection_dim", None) or config.vision_config.hidden_size)
        self.widths = {self.modality: width, "text": width}
        self.fingerprint = fingerprint(
            self._model.state_dict(),
            {
                "rules": self.rules,
                "family": self.name,
                self.modality: self._open_processor(snapshot),
                "vocabulary": sorted(self._tokenizer.get_vocab().items()),
                # Texts whose tokens show what else a tokenizer does: its merges and normalisation.
                "probes": [self._tokenizer(probe, verbose=False)["input_ids"] for probe in self.probes],
                "length": self._length,
            },
        )
        self._model.to(chosen_device)

    @abstractmethod
    def _open_processor(self, snapshot: Snapshot) -> dict[str, Any]:
        """Open what prepares pictures or sounds.

        Returns:
            its settings that decide which numbers an item becomes, the same for every version of transformers.
        """

    @abstractmethod
    def _prepare(self, item: Any) -> Any:
        """Decode and prepare one picture or sound."""

    @abstractmethod
    def _embed(self, prepared: list[Any]) -> Tensor:
        """Embed prepared pictures or sounds: `(B, D)`, not normalised."""

    def _move_to(self, device: torch.device) -> None:
        self._model.to(device)

    def _tower(self, modality: str) -> Tower:
        decode, embed = (read_text, self._embed_texts) if modality == "text" else (self._prepare, self._embed)
        return Tower(self.widths[modality], decode, embed)

    def _embed_texts(self, texts: list[str]) -> Tensor:
        ids, mask = token_batch(self._tokenizer, texts, self._length, self.name, pad_to_full=self.pad_to_full)
        device = self._model.device
        attended = mask.to(device) if self.masked else None
        rows: Tensor = self._model.get_text_features(input_ids=ids.to(device), attention_mask=attended).pooler_output
        return rows


class ImageTextSpace(DualEncoderSpace):
    """A published model that embeds pictures and texts (a `Space`), and patches of pictures.

    Pictures are turned upright by their EXIF orientation and composited on white where they are transparent (as
    transformers 5 does); the model's own image processor does the rest. Texts, arguments, attributes and errors: see
    `DualEncoderSpace`.
    """

    modality = "image"
    rules = "2"

    @abstractmethod
    def _project_patches(self, hidden: Tensor) -> Tensor:
        """Carry the last hidden state of the vision transformer into the joint space: `(B, T, D)`, patches only."""

    def patch_features(
        self,
        images: Any,
        size: int | tuple[int, int] | None = None,
        *,
        batch_size: int = 8,
        show_progress_bar: bool | None = None,
    ) -> NDArray[np.float32]:
        """Embed every patch of pictures in the space of whole pictures and texts, to find things in them.

        Args:
            images: pictures as for `encode`, one or several.
            size: `(height, width)` in pixels that the whole picture is resized to, without a crop, both multiples of the
                model's patch size; a whole number is both. Position embeddings are interpolated. None prepares pictures
                as `encode` does, crop included.
            batch_size: pictures per forward pass.
            show_progress_bar: as for `encode`.

        Returns:
            `(n, rows, columns, D)` float32, unit rows along D, top row of patches first; `n` is 1 for a single picture.

        Raises:
            ConfigError: a size that is no multiple of the patch size, or a wrong batch size.
            SampleError: a picture that cannot be decoded, with its position.
        """
        height, width = self._chosen_size(size)
        resized = None if size is None else {"height": height, "width": width}
        rows, columns = (edge // self._model.config.vision_config.patch_size for edge in (height, width))
        depth = self.widths["image"]
        tower = Tower(rows * columns * depth, lambda item: self._pixels(read_image(item), resized), self._embed_patches)
        features = embed_all(tower, listed(images)[0], batch_size, f"{self.name} patches", show_progress_bar)
        return np.asarray(features.cpu()).reshape(len(features), rows, columns, depth)

    def _open_processor(self, snapshot: Snapshot) -> dict[str, Any]:
        # Pillow, not torchvision: its resizing gives other pixels, and differs between versions.
        self._processor = open_processor(snapshot, "AutoImageProcessor", backend="pil")
        vision = self._model.config.vision_config
        prepared, expected = self._pixels(Image.new("RGB", (8, 8))).shape, (3, vision.image_size, vision.image_size)
        if prepared != expected:
            raise FormatError(
                f"{snapshot}: its image processor makes pictures of shape {prepared}, but its model reads {expected}."
            )
        settings = self._processor.to_dict()
        return {name: _plain(settings.get(name)) for name in _PROCESSOR_SETTINGS}

    def _prepare(self, item: Any) -> NDArray[np.float32]:
        return self._pixels(read_image(item))

    def _pixels(self, picture: Image.Image, size: dict[str, int] | None = None) -> NDArray[np.float32]:
        """Prepare one picture: `(3, H, W)`; with a `size` it is resized to that, without a crop."""
        options: dict[str, Any] = {}
        if size is not None:
            options = {"size": size, "do_resize": True, "do_center_crop": False}
        elif max(picture.size) * (self._processor.size.get("shortest_edge") or 0) > _LONGEST_EDGE * min(picture.size):
            # The processor, which scales the shorter edge, would blow it up.
            raise SampleError(
                f"a picture of {picture.width} x {picture.height} pixels is too narrow a strip to be read."
            )
        prepared = self._processor(images=to_rgb(picture), return_tensors="np", **options)
        return np.asarray(prepared["pixel_values"][0], dtype=np.float32)

    def _embed(self, prepared: list[NDArray[np.float32]]) -> Tensor:
        rows: Tensor = self._model.get_image_features(pixel_values=self._batch(prepared)).pooler_output
        return rows

    def _embed_patches(self, pictures: list[NDArray[np.float32]]) -> Tensor:
        vision = self._model.vision_model(pixel_values=self._batch(pictures), interpolate_pos_encoding=True)
        features = self._project_patches(vision.last_hidden_state).float()
        return nn.functional.normalize(features, dim=-1).flatten(1)

    def _batch(self, pictures: list[NDArray[np.float32]]) -> Tensor:
        return torch.from_numpy(np.stack(pictures)).to(self._model.device, self._model.dtype)

    def _chosen_size(self, size: int | tuple[int, int] | None) -> tuple[int, int]:
        vision = self._model.config.vision_config
        if size is None:
            return vision.image_size, vision.image_size
        chosen = tuple(size) if isinstance(size, Sequence) else (size, size)
        whole = len(chosen) == 2 and all(isinstance(edge, int) and not isinstance(edge, bool) for edge in chosen)
        if not whole or any(edge < vision.patch_size or edge % vision.patch_size for edge in chosen):
            raise ConfigError(
                f"size: expected multiples of the {vision.patch_size} pixels of a patch, (height, width), got {size!r}."
            )
        return chosen[0], chosen[1]


class ClipSpace(ImageTextSpace):
    """CLIP (Radford et al., 2021), or any model of its architecture; see `ImageTextSpace`."""

    name = "clip"
    model_type = "clip"
    # The main branch holds the weights as a pickled file only. This commit, a conversion by the hub itself that
    # transformers 5 falls back to as well, holds the same weights as safetensors.
    pins: ClassVar = {"openai/clip-vit-base-patch32": "c237dc49a33fc61debc9276459120b7eac67e7ef"}

    def _project_patches(self, hidden: Tensor) -> Tensor:
        # As the class token, which comes first, becomes the embedding of the picture.
        projected: Tensor = self._model.visual_projection(self._model.vision_model.post_layernorm(hidden))
        return projected[:, 1:]


class SiglipSpace(ImageTextSpace):
    """SigLIP (Zhai et al., 2023), or any model of its architecture; see `ImageTextSpace`.

    It was trained with a sigmoid over each pair instead of a softmax over a batch. The scale and bias of that sigmoid turn
    a cosine into a probability; embeddings and their order do not depend on them, so cmcr leaves them aside. SigLIP 2,
    which has another tokenizer, is refused. sentencepiece and protobuf must be installed.
    """

    name = "siglip"
    model_type = "siglip"
    pins: ClassVar = {"google/siglip-base-patch16-224": "7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed"}
    tokenizer_files = ("spiece.model",)
    pad_to_full = True  # the last token is what is pooled, and all were seen in training
    masked = False
    libraries: ClassVar = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}

    def _project_patches(self, hidden: Tensor) -> Tensor:
        # SigLIP has no class token: a learned query attends to all patches. Here it attends to one patch at a time, so
        # that a picture of a single patch has the embedding of that patch. The paper says nothing of patches.
        alone = hidden.flatten(0, 1)[:, None]
        embedded: Tensor = self._model.vision_model.head(alone)
        return embedded.reshape(hidden.shape)


def _plain(setting: Any) -> Any:
    """Reduce a setting of an image processor to JSON, without the keys that only some versions write."""
    if isinstance(setting, Mapping):
        return {key: value for key, value in sorted(setting.items()) if value is not None}
    return list(setting) if isinstance(setting, tuple) else setting

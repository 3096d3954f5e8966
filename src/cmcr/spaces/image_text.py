"""What CLIP and SigLIP have in common: one published model that embeds pictures and texts, and patches of pictures.

Legend of shapes: `B` batch, `D` width of the space, `L` tokens, `H` and `W` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cmcr.data.images import read_image, to_rgb
from cmcr.data.texts import read_text
from cmcr.engine.device import choose_device
from cmcr.errors import ConfigError, FormatError, SampleError
from cmcr.spaces.cut_texts import CutTexts
from cmcr.spaces.hub import (
    IMAGE_PROCESSOR,
    WEIGHTS,
    find_snapshot,
    fingerprint,
    open_model,
    open_processor,
    require_files,
    require_model_type,
)
from cmcr.spaces.pixels import pixel_table
from cmcr.spaces.tower import Tower, TowerSpace, embed_all, listed

_LONGEST_EDGE = 16_384  # pixels of a resized picture; a strip of 1 x 100000 would otherwise take gigabytes
_RULES = "2"  # raise it when this file or a decoder changes what the encoders see
_PROCESSOR_SETTINGS = (
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize image_mean image_std"
).split()
_PROBES = ("A photo of a cat, 1999!", "naïve café — 東京", "  two   spaces ", "it's")


@dataclass(frozen=True)
class Family:
    """How one family of models differs from the others.

    Attributes:
        name: of the space, such as "clip".
        pins: commits by model, taken where the caller names none.
        model_type: what `config.json` must call it.
        model_class: its class in transformers.
        image_processors: classes in transformers, the first that exists is taken.
        tokenizers: the same for its tokenizer.
        tokenizer_files: names that may stand for each other; `+` joins those that belong together.
        width: configuration -> width D of the space.
        pad_to_full: pad texts to the full length, as some families were trained, instead of to the longest.
        masked: tell the model which tokens are padding.
        patches: model, last hidden state of the vision transformer `(B, T, width)` -> `(B, patches, D)`.
    """

    name: str
    pins: Mapping[str, str]
    model_type: str
    model_class: str
    image_processors: tuple[str, ...]
    tokenizers: tuple[str, ...]
    tokenizer_files: tuple[str, ...]
    width: Callable[[Any], int]
    pad_to_full: bool
    masked: bool
    patches: Callable[[Any, Tensor], Tensor]


class ImageTextSpace(TowerSpace):
    """A published model that embeds pictures and texts (a `Space`): see `ClipSpace` and `SiglipSpace`.

    Pictures are turned upright by their EXIF orientation and composited on white where they are transparent (as
    transformers 5 does); the model's own image processor does the rest. Texts must hold something besides white space.
    What is beyond the model's length is cut, and a warning says of how many texts.

    Args:
        family: how the model is to be read.
        model: a folder or the name of a repository on the hub.
        revision: commit, tag or branch; None is the family's pinned commit of this model, else the main branch.
        device: where to compute; None takes a GPU if there is one.
        dtype: "float32", "float16" or "bfloat16"; embeddings are float32 in any case.
        local_files_only: never fetch anything.

    Attributes:
        name: of the family.
        widths: width D by modality.
        fingerprint: changes whenever the weights or the preprocessing do.
        source: the model that was asked for.
        revision: its commit, None for a folder that is no snapshot of the hub's cache.

    Raises:
        ArtefactNotFoundError: the files are neither here nor within reach; the message says what to fetch.
        FormatError: a model of another kind, or files that are missing or damaged.
        ConfigError: an unknown revision or dtype.
        DeviceError: a device that this machine does not have.
        MissingDependencyError: a library of the extra `encoders` is not installed.
    """

    def __init__(
        self,
        family: Family,
        model: str | Path,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        local_files_only: bool = False,
    ) -> None:
        where = choose_device(device or "auto")
        if revision is None and not Path(model).is_dir():
            revision = family.pins.get(str(model))
        snapshot = find_snapshot(model, revision, local_files_only=local_files_only)
        require_model_type(snapshot, family.model_type, type(self).__name__)
        require_files(snapshot, WEIGHTS, IMAGE_PROCESSOR, family.tokenizer_files)
        self._family = family
        self._processor = open_processor(snapshot, *family.image_processors)
        self._table = pixel_table(self._processor)
        self._tokenizer = open_processor(snapshot, *family.tokenizers)
        self._model = open_model(snapshot, family.model_class, dtype)
        self._length = int(self._model.config.text_config.max_position_embeddings)
        self._width = family.width(self._model.config)
        _check_picture_size(self._pixels(Image.new("RGB", (8, 8))), self._model.config.vision_config, str(snapshot))
        self.name = family.name
        self.source, self.revision = snapshot.source, snapshot.revision
        self.widths = {"image": self._width, "text": self._width}
        self.fingerprint = fingerprint(self._model.state_dict(), self._preprocessing())
        self._model.to(where)

    def __repr__(self) -> str:
        at = f" at {self.revision[:12]}" if self.revision else ""
        return f"{type(self).__name__}({self.source!r}{at}: image {self._width}, text {self._width})"

    def _place(self, device: torch.device) -> None:
        self._model.to(device)

    @contextmanager
    def _opened_towers(self) -> Iterator[Mapping[str, Tower]]:
        cut = CutTexts(self.name, self._length)
        yield {"image": self._image_tower(), "text": self._text_tower(cut)}
        cut.say()

    def patch_features(
        self,
        images: Any,
        size: int | tuple[int, int] | None = None,
        *,
        batch_size: int = 8,
        show_progress_bar: bool | None = None,
        device: str | None = None,
    ) -> NDArray[np.float32]:
        """Embed every patch of pictures in the space of whole pictures and texts, to find things in them.

        Args:
            images: pictures as for `encode`, one or several.
            size: `(height, width)` in pixels that the whole picture is resized to, without a crop, both multiples of the
                model's patch size; a whole number is both. Position embeddings are interpolated. None prepares pictures
                as `encode` does, crop included.
            batch_size: pictures per forward pass.
            show_progress_bar: as for `encode`.
            device: as for `encode`.

        Returns:
            `(n, rows, columns, D)` float32, unit rows along D, top row of patches first; `n` is 1 for a single picture.

        Raises:
            ConfigError: a size that is no multiple of the patch size, or a wrong batch size.
            SampleError: a picture that cannot be decoded, with its position.
        """
        height, width = self._chosen_size(size)
        wanted = None if size is None else {"height": height, "width": width}
        rows, columns = (edge // self._model.config.vision_config.patch_size for edge in (height, width))
        tower = Tower(
            rows * columns * self._width, lambda item: self._pixels(read_image(item), wanted), self._embed_patches
        )
        items, _ = listed(images)
        if device is not None:
            self._place(choose_device(device))
        features = embed_all(tower, items, batch_size, f"{self.name} patches", show_progress_bar)
        return np.asarray(features.cpu()).reshape(len(features), rows, columns, self._width)

    def _image_tower(self) -> Tower:
        def embed(pictures: list[NDArray[np.float32]]) -> Tensor:
            return pooled(self._model.get_image_features(pixel_values=self._placed(pictures)))

        return Tower(self._width, lambda item: self._pixels(read_image(item)), embed)

    def _text_tower(self, cut: CutTexts) -> Tower:
        """Build the tower of texts, which counts those that are cut."""

        def embed(texts: list[str]) -> Tensor:
            tokens = self._tokens(texts)
            for text, row in zip(texts, tokens, strict=True):
                if len(row) > self._length:
                    cut.add(text)
            return pooled(self._model.get_text_features(**self._padded(tokens)))

        return Tower(self._width, read_text, embed)

    def _pixels(self, picture: Image.Image, size: dict[str, int] | None = None) -> NDArray[np.float32]:
        """Prepare one picture: `(3, H, W)`; a `size` is taken as it is, without a crop."""
        if size is None:
            _check_shape(picture, self._processor.size)
            if self._table is not None:
                return self._table.prepare(to_rgb(picture))
        options = {} if size is None else {"size": size, "do_resize": True, "do_center_crop": False}
        prepared = self._processor(images=to_rgb(picture), return_tensors="np", **options)
        return np.asarray(prepared["pixel_values"][0], dtype=np.float32)

    def _placed(self, pictures: list[NDArray[np.float32]]) -> Tensor:
        weight = next(self._model.parameters())
        return torch.from_numpy(np.stack(pictures)).to(weight.device, weight.dtype)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """Tokenise texts, each as long as it is, with the tokens that begin and end it."""
        rows: list[list[int]] = self._tokenizer(texts, padding=False, truncation=False, verbose=False)["input_ids"]
        return rows

    def _padded(self, tokens: list[list[int]]) -> dict[str, Tensor]:
        """Cut and pad tokens as transformers does: an end-of-text token stays last, padding follows; `(B, L)` each."""
        rows = [row if len(row) <= self._length else [*row[: self._length - 1], row[-1]] for row in tokens]
        length = self._length if self._family.pad_to_full else max(map(len, rows))
        ids = torch.full((len(rows), length), int(self._tokenizer.pad_token_id))
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        device = next(self._model.parameters()).device
        given = {"input_ids": ids, "attention_mask": mask} if self._family.masked else {"input_ids": ids}
        return {name: tensor.to(device) for name, tensor in given.items()}

    def _embed_patches(self, pictures: list[NDArray[np.float32]]) -> Tensor:
        vision = self._model.vision_model(pixel_values=self._placed(pictures), interpolate_pos_encoding=True)
        features = self._family.patches(self._model, vision.last_hidden_state).float()
        return nn.functional.normalize(features, dim=-1).flatten(1)

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

    def _preprocessing(self) -> dict[str, Any]:
        """Describe what decides which numbers an item becomes, the same for every version of transformers."""
        settings = self._processor.to_dict()
        return {
            "rules": _RULES,
            "family": self._family.name,
            "image": {name: _plain(settings.get(name)) for name in _PROCESSOR_SETTINGS},
            "vocabulary": sorted(self._tokenizer.get_vocab().items()),
            "probes": self._tokens(list(_PROBES)),  # for what else a tokenizer does: its merges and normalisation
            "length": self._length,
        }


def pooled(output: Any) -> Tensor:
    """Take the embedding out of what `get_image_features` returns: a tensor in transformers 4, an object in 5."""
    embedding: Tensor = getattr(output, "pooler_output", output)
    return embedding


def _check_shape(picture: Image.Image, size: Mapping[str, Any]) -> None:
    """Refuse a strip that the processor, which scales the shorter edge, would blow up."""
    shortest = dict(size).get("shortest_edge")
    if shortest and max(picture.size) * shortest > _LONGEST_EDGE * min(picture.size):
        raise SampleError(f"a picture of {picture.width} x {picture.height} pixels is too narrow a strip to be read.")


def _check_picture_size(pixels: NDArray[np.float32], vision: Any, name: str) -> None:
    expected = (3, vision.image_size, vision.image_size)
    if pixels.shape != expected:
        raise FormatError(
            f"{name}: its image processor makes pictures of shape {pixels.shape}, but its model reads {expected}."
        )


def _plain(setting: Any) -> Any:
    """Reduce a setting of an image processor to JSON, without the keys that only some versions write."""
    if isinstance(setting, Mapping):
        return {key: value for key, value in sorted(setting.items()) if value is not None}
    return list(setting) if isinstance(setting, tuple) else setting

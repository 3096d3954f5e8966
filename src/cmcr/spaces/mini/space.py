"""The miniature spaces: small contrastive encoders of the world of three-digit numbers, shipped with cmcr."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from cmcr.data.audio import read_audio, window_of
from cmcr.data.images import read_image
from cmcr.data.point_clouds import read_point_cloud
from cmcr.embeddings import choose_device
from cmcr.errors import ConfigError, FormatError, SampleError, unknown_name
from cmcr.progress import tracked
from cmcr.spaces.mini.preprocessing import (
    CLIP_SAMPLES,
    PICTURE_SIZE,
    SAMPLE_RATE_HZ,
    VOCABULARY_SIZE,
    log_mel_of,
    pixels_of,
    tokens_of,
    unit_cloud,
    voxels_of,
)
from cmcr.spaces.mini.towers import PictureTower, PointTower, SoundTower, TextTower

MINI_SPACES = ("mini-clap", "mini-clip", "mini-ulip")
MINI_WIDTHS = {"mini-clip": 128, "mini-clap": 96, "mini-ulip": 64}
_PREPROCESSING = "1"  # raise it when preprocessing.py or a decoder changes what the encoders see


def mini_towers(name: str) -> nn.ModuleDict:
    """Build the towers of a miniature space, by modality, with random weights."""
    width = MINI_WIDTHS[name]
    if name == "mini-clip":
        return nn.ModuleDict({"image": PictureTower(width), "text": TextTower(VOCABULARY_SIZE, width)})
    if name == "mini-clap":
        return nn.ModuleDict({"audio": SoundTower(width), "text": TextTower(VOCABULARY_SIZE, width)})
    return nn.ModuleDict({"point_cloud": PointTower(width), "image": PictureTower(width)})


class MiniSpace:
    """One of the miniature spaces (a `Space`).

    Args:
        name: one of `MINI_SPACES`.

    Raises:
        FormatError: the weights in the package are missing or damaged.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._towers = mini_towers(name)
        self.widths: Mapping[str, int] = dict.fromkeys(self._towers.keys(), MINI_WIDTHS[name])
        weights = _weights(name)
        self._towers.load_state_dict(load(weights))  # float16 in the file, float32 in the towers
        self._towers.eval().requires_grad_(False)
        self.fingerprint = hashlib.sha256(weights + _PREPROCESSING.encode()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"MiniSpace({self.name!r}: {', '.join(f'{m} {w}' for m, w in self.widths.items())})"

    def encode(
        self,
        inputs: Sequence[Any],
        modality: str,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = True,
    ) -> Any:
        """Embed items of one modality; see `cmcr.spaces.protocol.Space.encode`.

        Pictures are read as grey 12 x 32, sounds as the middle 2 s at 8 kHz mono, point clouds centred and scaled to
        unit radius with y up, texts as up to 13 words.
        """
        if modality not in self.widths:
            raise unknown_name(f"modality of {self.name}", modality, self.widths)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size: expected a whole number of at least 1, got {batch_size!r}.")
        single = isinstance(inputs, str | os.PathLike | Image.Image | Mapping)
        items: Sequence[Any] = [inputs] if single else inputs
        tower = self._towers[modality]
        if device is not None:
            tower.to(choose_device(device))
        embeddings = self._embed(items, modality, tower, batch_size, show_progress_bar)
        if normalize_embeddings:
            embeddings = F.normalize(embeddings, dim=1)
        if single:
            embeddings = embeddings[0]
        return embeddings if convert_to_tensor or not convert_to_numpy else embeddings.cpu().numpy()

    def _embed(
        self, items: Sequence[Any], modality: str, tower: nn.Module, batch_size: int, show_progress_bar: bool | None
    ) -> Tensor:
        where = next(tower.parameters()).device
        parts = [torch.empty(0, self.widths[modality], device=where)]
        starts = range(0, len(items), batch_size)
        with torch.no_grad():
            for start in tracked(starts, f"{self.name} {modality}", show_progress_bar):
                batch = _PREPARE[modality](items[start : start + batch_size], start)
                parts.append(tower(batch.to(where)))
        return torch.cat(parts)


def _weights(name: str) -> bytes:
    path = resources.files("cmcr.spaces.mini") / "weights" / f"{name}.safetensors"
    try:
        weights = path.read_bytes()
        load(weights)
    except (OSError, SafetensorError) as error:
        raise FormatError(f"{path}: the weights of {name} are missing or damaged ({error}). Reinstall cmcr.") from error
    return weights


def _each(items: Sequence[Any], first: int, read: Callable[[Any], Any]) -> list[Any]:
    """Decode items one by one, adding the position to the message of one that fails."""
    decoded = []
    for position, item in enumerate(items, start=first):
        try:
            decoded.append(read(item))
        except SampleError as error:
            raise SampleError(f"item {position}: {error}") from error
    return decoded


def _pictures(items: Sequence[Any], first: int) -> Tensor:
    height, width = PICTURE_SIZE

    def read(item: Any) -> Any:
        grey = read_image(item).convert("L")
        if grey.size != (width, height):
            grey = grey.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(grey)

    return pixels_of(np.stack(_each(items, first, read)))


def _sounds(items: Sequence[Any], first: int) -> Tensor:
    clips = _each(items, first, lambda item: window_of(read_audio(item, SAMPLE_RATE_HZ), CLIP_SAMPLES))
    return log_mel_of(torch.from_numpy(np.stack(clips)))


def _point_clouds(items: Sequence[Any], first: int) -> Tensor:
    clouds = _each(items, first, read_point_cloud)
    if len({len(cloud) for cloud in clouds}) == 1:
        return voxels_of(unit_cloud(torch.from_numpy(np.stack(clouds))))
    return torch.cat([voxels_of(unit_cloud(torch.from_numpy(cloud)[None])) for cloud in clouds])


def _texts(items: Sequence[Any], first: int) -> Tensor:
    def read(item: Any) -> str:
        if not isinstance(item, str):
            raise SampleError(f"a text must be a string, got {type(item).__name__}.")
        return item

    return tokens_of(_each(items, first, read))


_PREPARE: dict[str, Callable[[Sequence[Any], int], Tensor]] = {
    "image": _pictures,
    "audio": _sounds,
    "point_cloud": _point_clouds,
    "text": _texts,
}

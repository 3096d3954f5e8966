"""The miniature spaces: small contrastive encoders of the world of three-digit numbers, shipped with cmcr."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from cmcr.data.audio import read_audio, window_of
from cmcr.data.images import read_image, to_rgb
from cmcr.data.point_clouds import read_point_cloud
from cmcr.data.texts import read_text
from cmcr.errors import FormatError
from cmcr.spaces.mini.encoders import (
    CLIP_SAMPLES,
    GRID_SIZE,
    PICTURE_SIZE,
    SAMPLE_RATE_HZ,
    VOCABULARY_SIZE,
    GridTower,
    SoundTower,
    TextTower,
    log_mel_of,
    pixels_of,
    tokens_of,
    unit_cloud,
    voxels_of,
)
from cmcr.spaces.tower import Tower, TowerSpace

MINI_WIDTHS = {"mini-clap": 96, "mini-clip": 128, "mini-ulip": 64}
MINI_SPACES = tuple(MINI_WIDTHS)
_PREPROCESSING = "2"  # raise it when the preprocessing or a decoder changes what the encoders see


def mini_towers(name: str) -> nn.ModuleDict:
    """Build the networks of a miniature space, by modality, with random weights."""
    width = MINI_WIDTHS[name]
    if name == "mini-clip":
        return nn.ModuleDict({"image": GridTower((1, *PICTURE_SIZE), width), "text": TextTower(VOCABULARY_SIZE, width)})
    if name == "mini-clap":
        return nn.ModuleDict({"audio": SoundTower(width), "text": TextTower(VOCABULARY_SIZE, width)})
    return nn.ModuleDict({"point_cloud": GridTower(GRID_SIZE, width), "image": GridTower((1, *PICTURE_SIZE), width)})


class MiniSpace(TowerSpace):
    """One of the miniature spaces (a `Space`).

    Pictures are read as grey 12 x 32 (what is transparent shows white), sounds as the middle 2 s at 8 kHz mono, point
    clouds centred and scaled to unit radius with y up, texts as up to 13 words.

    Args:
        name: one of `MINI_SPACES`.

    Raises:
        FormatError: the weights in the package are missing or damaged.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            weights = _weights(name)
            state = load(weights)
        except (OSError, SafetensorError) as error:
            raise FormatError(f"the weights of {name} are missing or damaged ({error}). Reinstall cmcr.") from error
        # Not on the device "meta", on which torch imports its compiler for an embedding's random start: over a second.
        with torch.random.fork_rng(devices=[]):  # that start must not move the caller's random state
            self._networks = mini_towers(name)
        self._networks.load_state_dict(state, assign=True)
        self._networks.float().eval().requires_grad_(False)  # the file holds float16
        self.widths = dict.fromkeys(self._networks, MINI_WIDTHS[name])
        self.fingerprint = hashlib.sha256(weights + _PREPROCESSING.encode()).hexdigest()[:16]

    def _move_to(self, device: torch.device) -> None:
        self._networks.to(device)

    def _tower(self, modality: str) -> Tower:
        decode, collate = _READ[modality]
        network = self._networks[modality]
        device = next(network.parameters()).device

        def embed(items: list[Any]) -> Tensor:
            rows: Tensor = network(collate(items).to(device))
            return rows

        return Tower(self.widths[modality], decode, embed)


def _weights(name: str) -> bytes:
    return (resources.files("cmcr.spaces.mini") / "weights" / f"{name}.safetensors").read_bytes()


def _picture(item: Any) -> NDArray[np.uint8]:
    height, width = PICTURE_SIZE
    grey = to_rgb(read_image(item)).convert("L")
    if grey.size != (width, height):
        grey = grey.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(grey)


def _sound(item: Any) -> NDArray[np.float32]:
    return window_of(read_audio(item, SAMPLE_RATE_HZ), CLIP_SAMPLES)


def _spectrograms(clips: list[NDArray[np.float32]]) -> Tensor:
    return log_mel_of(torch.from_numpy(np.stack(clips)))


def _voxels(clouds: list[NDArray[np.float32]]) -> Tensor:
    if len({len(cloud) for cloud in clouds}) == 1:
        return voxels_of(unit_cloud(torch.from_numpy(np.stack(clouds))))
    return torch.cat([voxels_of(unit_cloud(torch.from_numpy(cloud)[None])) for cloud in clouds])


_READ: dict[str, tuple[Callable[[Any], Any], Callable[[list[Any]], Tensor]]] = {
    "image": (_picture, lambda pictures: pixels_of(np.stack(pictures))),
    "audio": (_sound, _spectrograms),
    "point_cloud": (read_point_cloud, _voxels),
    "text": (read_text, tokens_of),
}
"""By modality, how one item is decoded and how a batch of decoded ones becomes a tensor."""

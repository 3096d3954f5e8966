"""ULIP-2 with PointBERT as a space: point clouds, and the pictures and texts of the same file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cmcr.arrays import check_count
from cmcr.data.images import read_image
from cmcr.data.texts import read_text
from cmcr.engine.device import choose_device
from cmcr.errors import ConfigError, FormatError, unknown_name
from cmcr.spaces.hub import BPE_FILES, TOKENIZER_ALONE, find_snapshot, open_processor, require_files, token_batch
from cmcr.spaces.tower import Tower, TowerSpace
from cmcr.spaces.ulip.preprocessing import PREPROCESSING, UpAxis, group_points, pixels_of, prepared_points
from cmcr.spaces.ulip.weights import open_towers

_NUM_POINTS = {3: 8192, 6: 10_000}  # points that the published files were trained with, by channels of a point
_TOKENIZER = "openai/clip-vit-base-patch32"  # any model of CLIP has the same vocabulary
Groups = tuple[NDArray[np.float32], NDArray[np.float32]]  # neighbourhoods and centres of a cloud

_CLOUDS_AT_ONCE = 4  # a cloud's groups pass through layers of 16384 x 512 numbers: 32 MiB each


class UlipSpace(TowerSpace):
    """ULIP-2 with PointBERT (a `Space`), from a published file, or its tensors as safetensors.

    All sizes but those of the groups are read from the weights: points of 3 or 6 channels, any depth and width, with or
    without the image and text towers.

    Point clouds: turned so that y is up, thinned to `num_points` evenly spaced in their order, centred on the mean, scaled
    to a largest radius of 1; then groups around centres found by farthest point sampling from point 0. The order of a
    cloud's points therefore matters a little, as in the published code. Pictures: shorter side to 224, middle crop,
    ImageNet's mean and deviation, what is transparent on white. Texts: CLIP's tokens; longer ones are cut with a warning.

    Args:
        model: path to the file.
        device: where to compute; None takes a GPU if there is one.
        num_points: the most points of a cloud to use; None is what the published file was trained with, 8192, or 10000 for
            coloured points. Smaller clouds are used as they are.
        up_axis: the axis of your clouds that points up, `"x"`, `"y"` or `"z"`.
        num_group: groups per cloud; the published files have 512.
        group_size: points per group; the published files have 32.
        tokenizer: folder with CLIP's tokenizer, needed for texts only; None looks among the models that huggingface_hub has
            already downloaded.

    Raises:
        ConfigError: a setting out of range.
        ArtefactNotFoundError, FormatError, ReadError: the weights are missing, not those of a ULIP file, or unreadable.
        DeviceError: a device that this machine does not have.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str | None = None,
        num_points: int | None = None,
        up_axis: UpAxis = "y",
        num_group: int = 512,
        group_size: int = 32,
        tokenizer: str | Path | None = None,
    ) -> None:
        if up_axis not in get_args(UpAxis):
            raise unknown_name("up_axis", up_axis, get_args(UpAxis))
        check_count("num_group", num_group)
        check_count("group_size", group_size)
        fewest = max(num_group, group_size)
        if num_points is not None:
            check_count("num_points", num_points)
            if num_points < fewest:
                raise ConfigError(f"num_points: the groups need at least {fewest}, got {num_points}.")
        self.name = "ulip"
        self._device = choose_device(device or "auto")
        self._networks = open_towers(Path(model))
        channels = self._networks["point_cloud"].channels
        most = max(num_points or _NUM_POINTS[channels], fewest)
        self.widths = {modality: tower.shape.embedding for modality, tower in self._networks.items()}
        self.fingerprint = _fingerprint(
            nn.ModuleDict(self._networks), f"{PREPROCESSING} {most} {up_axis} {num_group} {group_size}"
        )
        self._move_to(self._device)

        def grouped(item: Any) -> Groups:
            points = prepared_points(item, channels=channels, num_points=most, fewest=fewest, up_axis=up_axis)
            return group_points(points, num_group, group_size)

        self._grouped = grouped
        self._tokenizer_source = tokenizer or _TOKENIZER
        self._tokenizer: Any = None
        self._opening = Lock()

    def _move_to(self, device: torch.device) -> None:
        self._device = device
        for network in self._networks.values():
            network.to(device)

    def _tower(self, modality: str) -> Tower:
        width, network = self.widths[modality], self._networks[modality]
        if modality == "image":
            return Tower(width, lambda item: pixels_of(read_image(item), network.size), partial(self._embed, network))
        if modality == "text":
            return Tower(width, read_text, self._embed_texts)
        return Tower(width, self._grouped, self._embed_clouds)

    def _embed_clouds(self, clouds: list[Groups]) -> Tensor:
        parts = []
        for start in range(0, len(clouds), _CLOUDS_AT_ONCE):
            neighborhoods, centers = zip(*clouds[start : start + _CLOUDS_AT_ONCE], strict=True)
            parts.append(self._embed(self._networks["point_cloud"], neighborhoods, centers))
        return torch.cat(parts)

    def _embed_texts(self, texts: list[str]) -> Tensor:
        network = self._networks["text"]
        with self._opening:
            if self._tokenizer is None:
                self._tokenizer = self._opened_tokenizer(network.vocabulary)
        ids, _ = token_batch(self._tokenizer, texts, network.context, self.name)
        rows: Tensor = network(ids.to(self._device))
        return rows

    def _embed(self, network: nn.Module, *inputs: Sequence[NDArray[np.float32]]) -> Tensor:
        rows: Tensor = network(*(torch.from_numpy(np.stack(arrays)).to(self._device) for arrays in inputs))
        return rows

    def _opened_tokenizer(self, vocabulary: int) -> Any:
        """Open CLIP's tokenizer, at the first text: point clouds and pictures work without it. Nothing is ever fetched."""
        snapshot = find_snapshot(self._tokenizer_source, local_files_only=True, files=TOKENIZER_ALONE)
        require_files(snapshot, BPE_FILES)
        tokenizer = open_processor(snapshot, "CLIPTokenizer")
        expected, found = (vocabulary - 2, vocabulary - 1), (tokenizer.bos_token_id, tokenizer.eos_token_id)
        if found != expected:
            raise FormatError(
                f"{snapshot}: expected a tokenizer that starts and ends texts with {expected}, as these weights do, got "
                f"{found}. Give the folder with CLIP's own files as tokenizer=."
            )
        return tokenizer


def _fingerprint(networks: nn.Module, settings: str) -> str:
    """Hash names, shapes and values of the weights and the settings, so that they count the same in any file format."""
    state = networks.state_dict()
    digest = hashlib.sha256(settings.encode())
    for name in sorted(state):
        value = state[name].contiguous()
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.numpy())
    return digest.hexdigest()[:16]

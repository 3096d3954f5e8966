"""ULIP-2 with PointBERT as a space: point clouds, and the pictures and texts of the same file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cmcr.data.images import read_image
from cmcr.engine.device import choose_device
from cmcr.errors import ConfigError, unknown_name
from cmcr.spaces.tower import Tower, TowerSpace
from cmcr.spaces.ulip.checkpoint import build_towers, read_tensors
from cmcr.spaces.ulip.grouping import PointGroups, group_points
from cmcr.spaces.ulip.preprocessing import PREPROCESSING, UpAxis, pixels_of, prepared_points
from cmcr.spaces.ulip.tokens import ClipTokens

_NUM_POINTS = {3: 8192, 6: 10_000}  # points that the published files were trained with, by channels of a point
_CLOUDS_AT_ONCE = 4  # a cloud's groups pass through layers of 16384 x 512 numbers: 32 MiB each


class UlipSpace(TowerSpace):
    """ULIP-2 with PointBERT (a `Space`), from a published file or one that `convert` wrote.

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
        _check_count("num_group", num_group, 1)
        _check_count("group_size", group_size, 1)
        fewest = max(num_group, group_size)
        if num_points is not None:
            _check_count("num_points", num_points, fewest)
        self.name = "ulip"
        self._device = choose_device(device or "auto")
        self._networks = build_towers(read_tensors(Path(model)), str(model))
        channels = self._networks.point_cloud.shape.channels
        most = max(num_points or _NUM_POINTS[channels], fewest)
        settings = f"{PREPROCESSING} {most} {up_axis} {num_group} {group_size}"
        self.fingerprint = _fingerprint(self._networks, settings)
        self._networks.to(self._device)

        def grouped(item: Any) -> PointGroups:
            points = prepared_points(item, channels=channels, num_points=most, fewest=fewest, up_axis=up_axis)
            return group_points(points, num_group, group_size)

        self._tokens: ClipTokens | None = None
        self._towers = self._towers_of(grouped, None if tokenizer is None else Path(tokenizer))
        self.widths = {modality: tower.width for modality, tower in self._towers.items()}

    def __repr__(self) -> str:
        return f"UlipSpace({', '.join(f'{m} {w}' for m, w in self.widths.items())}; {self.fingerprint})"

    def _place(self, device: torch.device) -> None:
        self._device = device
        self._networks.to(device)

    @contextmanager
    def _opened_towers(self) -> Iterator[Mapping[str, Tower]]:
        if self._tokens is None:
            yield self._towers
            return
        cut = self._tokens.counter()
        text = replace(self._towers["text"], decode=partial(self._tokens, cut=cut))
        yield {**self._towers, "text": text}
        cut.say()

    def _towers_of(self, grouped: Callable[[Any], PointGroups], tokenizer: Path | None) -> dict[str, Tower]:
        networks = self._networks
        width = networks.point_cloud.shape.embedding
        towers = {"point_cloud": Tower(width, grouped, partial(self._embed_clouds, networks.point_cloud))}
        if networks.image is not None:
            size = networks.image.shape.size
            towers["image"] = Tower(
                width, lambda item: pixels_of(read_image(item), size), partial(self._embed_pictures, networks.image)
            )
        if networks.text is not None:
            self._tokens = ClipTokens(tokenizer, networks.text.shape.vocabulary, networks.text.shape.context)
            # Every call brings its own counter of texts that are cut.
            tokens = partial(self._tokens, cut=self._tokens.counter())
            towers["text"] = Tower(width, tokens, partial(self._embed_texts, networks.text))
        return towers

    def _embed_clouds(self, network: nn.Module, clouds: list[PointGroups]) -> Tensor:
        parts = []
        for start in range(0, len(clouds), _CLOUDS_AT_ONCE):
            few = clouds[start : start + _CLOUDS_AT_ONCE]
            neighborhoods = self._tensor(np.stack([cloud.neighborhoods for cloud in few]))
            parts.append(network(neighborhoods, self._tensor(np.stack([cloud.centers for cloud in few]))))
        return torch.cat(parts)

    def _embed_pictures(self, network: nn.Module, pictures: list[NDArray[np.float32]]) -> Tensor:
        rows: Tensor = network(self._tensor(np.stack(pictures)))
        return rows

    def _embed_texts(self, network: nn.Module, texts: list[list[int]]) -> Tensor:
        # As long as the longest: what follows the end of a text is never looked at, so its filling does not matter.
        ids = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = text
        rows: Tensor = network(self._tensor(ids))
        return rows

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _check_count(name: str, value: object, fewest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < fewest:
        raise ConfigError(f"{name}: expected a whole number of at least {fewest}, got {value!r}.")


def _fingerprint(networks: nn.Module, settings: str) -> str:
    """Hash names, shapes and values of the weights and the settings, so that a converted file counts as the same."""
    state = networks.state_dict()
    digest = hashlib.sha256(settings.encode())
    for name in sorted(state):
        value = state[name].contiguous()
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.numpy())
    return digest.hexdigest()[:16]

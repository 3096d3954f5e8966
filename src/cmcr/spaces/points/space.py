"""A space of point clouds, whose encoder sees groups of points."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cmcr.arrays import check_count
from cmcr.errors import ConfigError, unknown_name
from cmcr.spaces.points.groups import PREPROCESSING, Groups, UpAxis, group_points, prepared_points
from cmcr.spaces.tower import Tower, TowerSpace

_POINTS_AT_ONCE = 65_536  # points of groups in one pass through layers of 512 channels: 128 MiB each


class PointCloudSpace(TowerSpace):
    """A space whose networks embed point clouds, and for some files other modalities.

    Args:
        name: of the space.
        networks: by modality, with `shape`; that of "point_cloud" takes `(B, G, S, C)` neighbourhoods and `(B, G, 3)`
            centres.
        device: where to compute.
        channels: C of a point, 3 or 6.
        trained_points: as many points of a cloud as the files were trained with.
        num_points: the most points of a cloud to use; None is `trained_points`, or more where the groups need them.
        up_axis: the axis of the clouds that points up.
        num_group: groups G of a cloud.
        group_size: points S of a group.
        core: see `farthest_points`.

    Raises:
        ConfigError: a setting out of range.
    """

    def __init__(
        self,
        name: str,
        networks: Mapping[str, Any],
        device: torch.device,
        *,
        channels: int,
        trained_points: int,
        num_points: int | None,
        up_axis: UpAxis,
        num_group: int,
        group_size: int,
        core: float = 0.0,
    ) -> None:
        if up_axis not in get_args(UpAxis):
            raise unknown_name("up_axis", up_axis, get_args(UpAxis))
        for setting, value in (("num_group", num_group), ("group_size", group_size), ("num_points", num_points)):
            if value is not None:
                check_count(setting, value)
        fewest = max(num_group, group_size)
        most = max(trained_points, fewest) if num_points is None else num_points
        if most < fewest:
            raise ConfigError(f"num_points: the groups need at least {fewest}, got {num_points}.")
        self.name = name
        self._networks = dict(networks)
        self.widths = {modality: network.shape.embedding for modality, network in self._networks.items()}
        settings = f"{PREPROCESSING} {most} {up_axis} {num_group} {group_size}"
        self.fingerprint = _fingerprint(nn.ModuleDict(self._networks), settings)
        self._move_to(device)

        def grouped(item: Any) -> Groups:
            points = prepared_points(item, channels=channels, num_points=most, fewest=fewest, up_axis=up_axis)
            return group_points(points, num_group, group_size, core)

        self._grouped = grouped
        self._clouds_at_once = max(1, _POINTS_AT_ONCE // (num_group * group_size))

    def _move_to(self, device: torch.device) -> None:
        self._device = device
        for network in self._networks.values():
            network.to(device)

    def _tower(self, modality: str) -> Tower:
        return Tower(self.widths[modality], self._grouped, self._embed_clouds)

    def _embed_clouds(self, clouds: list[Groups]) -> Tensor:
        parts = []
        for start in range(0, len(clouds), self._clouds_at_once):
            neighborhoods, centers = zip(*clouds[start : start + self._clouds_at_once], strict=True)
            parts.append(self._embed(self._networks["point_cloud"], neighborhoods, centers))
        return torch.cat(parts)

    def _embed(self, network: nn.Module, *inputs: Sequence[NDArray[np.float32]]) -> Tensor:
        rows: Tensor = network(*(torch.from_numpy(np.stack(arrays)).to(self._device) for arrays in inputs))
        return rows


def _fingerprint(networks: nn.Module, settings: str) -> str:
    """Hash names, shapes and values of the weights and the settings, so that they count the same in any file format."""
    state = networks.state_dict()
    digest = hashlib.sha256(settings.encode())
    for name in sorted(state):
        value = state[name].contiguous()
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.numpy())
    return digest.hexdigest()[:16]

"""A published file of weights, turned into networks strictly."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cmcr.errors import FormatError
from cmcr.spaces.hub import read_published_tensors
from cmcr.spaces.points.towers import TowerShape

Shapes = Mapping[str, tuple[int, ...]]  # of tensors by their published names

_HEAD_WIDTH = 64  # of all published towers that are read here; heads leave no trace in the shapes of the tensors


@dataclass(frozen=True)
class PublishedFile:
    """What one kind of file holds.

    Attributes:
        name: such as "ULIP", for messages.
        fetch: what to do where a file is of no use, for messages.
        unused: beginnings of the names of tensors that no network needs.
        builders: by modality, the sizes of all tensors -> a network with `shape` and the published names; "point_cloud"
            must be there, others may.
        modality_of: the network that a tensor belongs to, by its name.
    """

    name: str
    fetch: str
    unused: tuple[str, ...]
    builders: Mapping[str, Callable[[Shapes], Any]]
    modality_of: Callable[[str], str] = lambda _: "point_cloud"

    def open(self, path: Path) -> tuple[dict[str, Any], float | None]:
        """Build the networks whose weights are in a file, with the sizes that the weights have, and load them strictly.

        Args:
            path: a published `.pt` file, or its tensors by the same names as safetensors.

        Returns:
            Float32 networks for inference, on the CPU, by modality; and the trained temperature, where the file holds it.

        Raises:
            ArtefactNotFoundError, ReadError: as `cmcr.spaces.hub.read_published_tensors`.
            FormatError: likewise, or no point clouds, or missing, unexpected, misshapen or not finite tensors.
        """
        published = read_published_tensors(path, self.fetch)
        scale = published.get("logit_scale")
        tensors = {
            # Some files hold half precision; the count of batches that normalisation keeps stays a whole number.
            name: value.float() if value.is_floating_point() else value
            for name, value in published.items()
            if not name.startswith(self.unused)
        }
        bad = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
        if bad:
            raise FormatError(f"{path}: {len(bad)} tensors hold NaN or infinity, the first is {bad[0]}. {self.fetch}")
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        there = {"point_cloud", *map(self.modality_of, shapes)}
        try:
            with torch.device("meta"):  # no random initialisation, which would move the caller's random state
                towers = {modality: build(shapes) for modality, build in self.builders.items() if modality in there}
            state = {f"{self.modality_of(name)}.{name}": value for name, value in tensors.items()}
            networks = nn.ModuleDict(towers)
            networks.load_state_dict(state, assign=True)
            networks.eval().requires_grad_(False)
        except KeyError as error:
            raise FormatError(f"{path}: not a published {self.name} file, missing {error}. {self.fetch}") from error
        except (RuntimeError, ValueError, ArithmeticError) as error:
            raise FormatError(
                f"{path}: its tensors are not those of a published {self.name} file: {error}. {self.fetch}"
            ) from error
        widths = {modality: tower.shape.embedding for modality, tower in towers.items()}
        if len(set(widths.values())) > 1:
            raise FormatError(f"{path}: the projections lead to different widths, {widths}; one space has one.")
        return towers, None if scale is None else math.exp(-float(scale))


def shape_of(shapes: Shapes, width: int, embedding: int, blocks: str, hidden_layer: str) -> TowerShape:
    """Read the sizes of a transformer from the shapes of its first block, and its blocks' number."""
    if not width or width % _HEAD_WIDTH:
        raise ValueError(
            f"expected a width that is a multiple of {_HEAD_WIDTH}, the width of an attention head in the published "
            f"files, got {width}"
        )
    hidden, _ = shapes[f"{blocks}.0.mlp.{hidden_layer}.weight"]
    numbered = re.compile(rf"{re.escape(blocks)}\.(\d+)\.")
    depth = len({found[1] for name in shapes if (found := numbered.match(name))})
    return TowerShape(width, depth, width // _HEAD_WIDTH, hidden, embedding)

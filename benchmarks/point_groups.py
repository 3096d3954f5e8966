"""Groups of points: ours in numpy, against the plain torch loop, beside the PointBERT that they are made for.

Prints one JSON line: seconds per cloud (the fastest of some repeats, one thread each unless the environment says otherwise),
our share of the encoder's time, and whether both choose the same centres and neighbours.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cmcr.spaces.points.groups import group_points
from cmcr.spaces.ulip.towers import POINT_BERT, PointCloudTower

NUM_GROUP = 512
GROUP_SIZE = 32


def plain(points: Tensor) -> tuple[Tensor, Tensor]:
    """Group as it is usually written without CUDA: a loop in torch, then all distances by a matrix product.

    Args:
        points: `(P, 3)`.

    Returns:
        Neighbours relative to their centre `(G, S, 3)`, and the centres `(G, 3)`.
    """
    batch = points[None]
    chosen = torch.zeros(1, NUM_GROUP, dtype=torch.long)
    nearest = torch.full((1, len(points)), 1e10)
    farthest = torch.zeros(1, dtype=torch.long)
    for step in range(NUM_GROUP):
        chosen[:, step] = farthest
        squared = ((batch - batch[:, farthest[0]][:, None]) ** 2).sum(-1)
        nearest = torch.minimum(nearest, squared)
        farthest = nearest.max(-1)[1]
    centers = points[chosen[0]]
    squared = -2 * centers @ points.T + (centers**2).sum(-1)[:, None] + (points**2).sum(-1)[None]
    members = squared.topk(GROUP_SIZE, dim=-1, largest=False, sorted=False)[1]
    return points[members] - centers[:, None], centers


def main() -> None:
    """Measure one cloud."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    cloud = generator.normal(size=(arguments.points, 3)).astype(np.float32)
    cloud /= np.linalg.norm(cloud, axis=1).max()
    groups = group_points(cloud, NUM_GROUP, GROUP_SIZE)
    encode = _encoder(*groups)
    ours = _fastest(lambda: group_points(cloud, NUM_GROUP, GROUP_SIZE), arguments.repeats)
    theirs = _fastest(lambda: plain(torch.from_numpy(cloud)), arguments.repeats)
    encoder = _fastest(encode, arguments.repeats)
    print(
        json.dumps(
            {
                "benchmark": "point_groups",
                "points": arguments.points,
                "groups": NUM_GROUP,
                "group_size": GROUP_SIZE,
                "seconds": round(ours, 4),
                "plain_seconds": round(theirs, 4),
                "times_faster_than_plain": round(theirs / ours, 1),
                "encoder_seconds": round(encoder, 4),
                "share_of_encoder": round(ours / encoder, 4),
                "same_centers": bool(np.array_equal(plain(torch.from_numpy(cloud))[1].numpy(), groups[1])),
                "same_groups": round(_same_groups(groups[0], plain(torch.from_numpy(cloud))[0].numpy()), 4),
                "threads": torch.get_num_threads(),
            }
        ),
        flush=True,
    )


def _encoder(neighborhoods: np.ndarray, centers: np.ndarray) -> Callable[[], object]:
    """Prepare a PointBERT of the published size, with random weights, for one cloud."""
    tower = PointCloudTower(POINT_BERT).eval().requires_grad_(False)
    for weights in tower.parameters():
        weights.normal_(0, 0.02)
    inputs = torch.from_numpy(neighborhoods)[None], torch.from_numpy(centers)[None]
    return lambda: tower(*inputs)


def _same_groups(neighborhoods: np.ndarray, theirs: np.ndarray) -> float:
    """Give the share of groups with the same points, whatever their order."""
    same = [
        np.array_equal(np.unique(ours, axis=0), np.unique(other, axis=0))
        for ours, other in zip(neighborhoods, theirs, strict=True)
    ]
    return float(np.mean(same))


def _fastest(work: Callable[[], object], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()

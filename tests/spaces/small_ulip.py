"""Small ULIP files of the true architecture with random weights, a tokenizer of letters, and clouds."""

import argparse
import json

import numpy as np
import torch

from cmcr.spaces.ulip.pointbert import PointBertShape, PointCloudTower
from cmcr.spaces.ulip.towers import ImageShape, ImageTower, TextShape, TextTower

NUM_GROUP, GROUP_SIZE, NUM_POINTS = 12, 6, 40
SMALL = {"num_group": NUM_GROUP, "group_size": GROUP_SIZE, "num_points": NUM_POINTS}
POINT = PointBertShape(width=64, depth=2, heads=1, group_width=24, hidden=96, embedding=32)
COLOURED = PointBertShape(channels=6, width=64, depth=1, heads=1, group_width=24, hidden=96, embedding=32)
PICTURE = ImageShape(size=32, patch=8, width=64, depth=2, heads=1, hidden=96, embedding=32)
TEXT = TextShape(vocabulary=514, context=16, width=64, depth=2, heads=1, hidden=96, embedding=32)


def randomised(tower, seed):
    """Random weights that depend on the seed alone, the statistics of normalisation included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in tower.state_dict().items():
            if value.is_floating_point():
                spread = 0.5 + torch.rand(value.shape, generator=generator)
                normal = torch.randn(value.shape, generator=generator) * value[0].numel() ** -0.5
                value.copy_(spread if name.endswith("running_var") else normal)
    return tower.eval()


def state_of(point=POINT, picture=PICTURE, text=TEXT):
    """A file's tensors, by published name."""
    towers = [PointCloudTower(point)]
    towers += [ImageTower(picture)] if picture else []
    towers += [TextTower(text)] if text else []
    state = {k: v for i, tower in enumerate(towers) for k, v in randomised(tower, i).state_dict().items()}
    return state | {"logit_scale": torch.tensor(4.6)}


def saved(path, state):
    """A file as published: a prefix on every key, settings and numpy's numbers beside the tensors."""
    torch.save(
        {
            "epoch": "last",
            "state_dict": {f"module.{name}": value for name, value in state.items()},
            "optimizer": {"state": {0: {"step": 1, "moments": np.ones(3)}}},
            "best_acc1": np.float64(74.8),
            "args": argparse.Namespace(model="ULIP_PointBERT", npoints=8192),
        },
        path,
    )
    return path


def write_tokenizer(place):
    """CLIP's files with no merges: a token a letter."""
    place.mkdir()
    letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    assert len(words) == TEXT.vocabulary
    (place / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    return place


def cloud(seed, count=50, columns=3):
    """Coordinates in steps of 1/256, so that moving them by whole numbers or doubling them is exact."""
    rng = np.random.default_rng(seed)
    xyz = rng.integers(-256, 257, size=(count, 3)) / 256
    return np.concatenate([xyz, rng.random((count, columns - 3))], axis=1).astype(np.float32)

"""Train the three miniature spaces and write their weights into the package (`make mini`; about half an hour).

Each space is trained alone, on its own pairs only, with the ordinary symmetric contrastive loss and a learned
temperature (Radford et al. 2021, CLIP): mini-clip on pictures and texts, mini-clap on sounds and texts, mini-ulip on
point clouds and pictures. Items are drawn from the training handwriting and voices, new ones at every step; the 200 unseen
numbers never occur. A batch holds distinct numbers, so that no negative is in truth a positive.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from cmcr.data.numbers import (
    ALL_NUMBERS,
    SEEN_NUMBERS,
    UNSEEN_NUMBERS,
    Split,
    draw_pictures,
    sample_point_clouds,
    speak_sounds,
    write_texts,
)
from cmcr.spaces.mini.space import (
    MINI_WIDTHS,
    log_mel_of,
    mini_towers,
    pixels_of,
    tokens_of,
    unit_cloud,
    voxels_of,
)

BATCH = 400
LEARNING_RATE = 2e-3
STEPS = {"mini-clip": 2000, "mini-clap": 1000, "mini-ulip": 4000}

Draw = Callable[[NDArray[np.int64], Split, np.random.Generator], Tensor]


def texts(numbers: NDArray[np.int64], split: Split, rng: np.random.Generator) -> Tensor:
    """Token rows of random phrasings (the same phrasings serve training and test)."""
    return tokens_of(write_texts(numbers, rng))


def pictures(numbers: NDArray[np.int64], split: Split, rng: np.random.Generator) -> Tensor:
    """Pixels of random pictures."""
    return pixels_of(draw_pictures(numbers, split, rng))


def sounds(numbers: NDArray[np.int64], split: Split, rng: np.random.Generator) -> Tensor:
    """Spectrograms of random sounds."""
    return log_mel_of(torch.from_numpy(speak_sounds(numbers, split, rng)))


def point_clouds(numbers: NDArray[np.int64], split: Split, rng: np.random.Generator) -> Tensor:
    """Voxel grids of random solids."""
    return voxels_of(unit_cloud(torch.from_numpy(sample_point_clouds(numbers, split, rng))))


DRAW: dict[str, Draw] = {"text": texts, "image": pictures, "audio": sounds, "point_cloud": point_clouds}


def train(name: str, steps: int, seed: int) -> nn.ModuleDict:
    """Train one space."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = mini_towers(name)
    first, second = model.keys()
    log_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
    optimizer = torch.optim.AdamW([*model.parameters(), log_scale], lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        numbers = rng.choice(SEEN_NUMBERS, size=BATCH, replace=False)
        with torch.autocast("cpu", torch.bfloat16):
            a = model[first](DRAW[first](numbers, "train", rng))
            b = model[second](DRAW[second](numbers, "train", rng))
        a, b = F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)
        logits = a @ b.T * log_scale.clamp(max=np.log(100.0)).exp()
        target = torch.arange(BATCH)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == steps:
            report = "  ".join(f"{key} {value:.3f}" for key, value in evaluate(model).items())
            seconds = time.perf_counter() - start
            print(f"{name} step {step} loss {loss.item():.3f} {seconds:.0f} s  {report}", flush=True)
    return model.eval()


@torch.inference_mode()
def evaluate(model: nn.ModuleDict) -> dict[str, float]:
    """R@1 among 1000 test items of each other's modality, both directions, and for the unseen numbers alone."""
    model.eval()
    rng = np.random.default_rng(99)
    first, second = model.keys()
    a = F.normalize(model[first](DRAW[first](ALL_NUMBERS, "test", rng)), dim=1)
    b = F.normalize(model[second](DRAW[second](ALL_NUMBERS, "test", rng)), dim=1)
    model.train()
    result: dict[str, float] = {}
    for direction, similarity in ((f"{first}_to_{second}", a @ b.T), (f"{second}_to_{first}", b @ a.T)):
        hit = similarity.argmax(dim=1) == torch.arange(len(ALL_NUMBERS))
        result[f"{direction}/R@1"] = hit.float().mean().item()
        result[f"{direction}/R@1 unseen"] = hit[torch.from_numpy(UNSEEN_NUMBERS)].float().mean().item()
    return result


def main() -> None:
    """Train the spaces named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(STEPS))
    parser.add_argument("--out", type=Path, default=Path("src/cmcr/spaces/mini/weights"))
    parser.add_argument("--steps", type=int, default=None, help="instead of the recipe's own, for a trial")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        model = train(name, arguments.steps or STEPS[name], arguments.seed)
        half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
        path = arguments.out / f"{name}.safetensors"
        save_file(half, path, metadata={"space": name, "width": str(MINI_WIDTHS[name])})
        print(f"{path}: {path.stat().st_size} bytes", flush=True)


if __name__ == "__main__":
    main()

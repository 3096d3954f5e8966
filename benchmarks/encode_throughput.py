"""Measure what `encode` costs beside the network: pictures per second against a bare forward loop.

The bare loop runs the network over pictures that were decoded and prepared beforehand; the serial loop decodes, prepares
and embeds batch after batch in one thread, as a user would write it. `encode` decodes ahead in threads, so it can come
near the bare loop only where a core is free for that, or where the network costs far more than the picture. All three
read the same files, interleaved in rounds, and the median of the rounds' ratios is given. On a machine that does other
work too, look at the processor time of the thread that runs the network (with OMP_NUM_THREADS=1, all of it): another core
cannot take over what `encode` adds there. One JSON line.

    python benchmarks/encode_throughput.py --rounds 15

The weights are random: of a CLIP ViT-B/32, or of one with fewer layers, of the true widths.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cmcr.data.images import read_image, to_rgb
from cmcr.spaces.dual_encoders import DualEncoderSpace


def write_pictures(folder: Path, count: int, edge: int) -> list[Path]:
    """Write JPEG files of smooth noise, `edge` x 4/3 `edge` pixels."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(count):
        coarse = rng.integers(0, 256, (edge // 16, edge // 12, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((edge * 4 // 3, edge), Image.Resampling.BICUBIC)
        files.append(folder / f"{number}.jpeg")
        picture.save(files[-1], quality=90)
    return files


def write_model(folder: Path, layers: int) -> None:
    """Write a CLIP ViT-B/32 with random weights and a tokenizer of a few letters."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    text = {"num_hidden_layers": 1, "vocab_size": 4, "bos_token_id": 0, "eos_token_id": 1}
    CLIPModel(CLIPConfig(text_config=text, vision_config={"num_hidden_layers": layers})).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)


def loops(space: DualEncoderSpace, folder: Path, files: list[Path], batch: int) -> dict[str, Callable[[], Any]]:
    """Return the three methods to embed the same files, by name."""
    transformers: Any = import_module("transformers")
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)

    def prepare(file: Path) -> NDArray[np.float32]:
        prepared: NDArray[np.float32] = processor(images=to_rgb(read_image(file)), return_tensors="np")["pixel_values"]
        return prepared[0]

    def forward(pictures: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        with torch.no_grad():
            output = model.get_image_features(pixel_values=torch.from_numpy(np.stack(pictures)))
        rows: NDArray[np.float32] = output.pooler_output.numpy()
        return rows

    ready = [prepare(file) for file in files]
    starts = range(0, len(files), batch)
    return {
        "bare": lambda: [forward(ready[i : i + batch]) for i in starts],
        "serial": lambda: [forward([prepare(file) for file in files[i : i + batch]]) for i in starts],
        "encode": lambda: space.encode(files, "image", batch_size=batch, show_progress_bar=False),
    }


def measure(methods: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Time every method once per round, after one to warm up.

    Returns:
        per round the seconds by the clock, and of processor time of this thread.
    """
    names = list(methods)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:  # each goes first, in turn
            method = methods[name]
            clock, processor = time.perf_counter(), time.thread_time()
            method()
            if turn:
                taken[name].append((time.perf_counter() - clock, time.thread_time() - processor))
    return taken


def over_bare(seconds: dict[str, list[tuple[float, float]]], method: str, clock: int) -> float:
    """Give the median over rounds of the bare loop's time over this method's; within a round the load is the same."""
    return round(
        median(bare[clock] / own[clock] for bare, own in zip(seconds["bare"], seconds[method], strict=True)), 3
    )


def main() -> None:
    """Write a model and pictures into a temporary folder, measure, print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--edge", type=int, default=480, help="height of the JPEG files in pixels")
    parser.add_argument("--layers", type=int, default=12, help="of the vision transformer; 12 is the true number")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clip"
        write_model(folder, arguments.layers)
        files = write_pictures(Path(name), arguments.pictures, arguments.edge)
        space = DualEncoderSpace("clip", model=folder, device="cpu")
        seconds = measure(loops(space, folder, files, arguments.batch), arguments.rounds)
    line = {
        **vars(arguments),
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **{
            f"{method}_pictures_per_second": round(arguments.pictures / median(took for took, _ in times), 1)
            for method, times in seconds.items()
        },
        **{f"{method}_over_bare": over_bare(seconds, method, 0) for method in ("encode", "serial")},
        **{f"{method}_over_bare_in_this_thread": over_bare(seconds, method, 1) for method in ("encode", "serial")},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()

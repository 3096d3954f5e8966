"""Measure memories on disk: embedding beside a bare loop, RAM beside the number of items, writing and reading.

    python benchmarks/memories.py embedding   pictures and texts through `cmcr.embed`, beside the network alone
    python benchmarks/memories.py ram          peak RAM of embedding 10,000 and 1,000,000 texts with the miniature tower
    python benchmarks/memories.py write        a million precomputed rows, beside a plain sequential write of their bytes
    python benchmarks/memories.py read         random rows, beside numpy's memory map of the same rows

One JSON line a figure. `--small` takes a fiftieth of everything, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from cmcr import Memory, embed, space, write_memory
from cmcr.data.numbers import write_texts
from cmcr.spaces.dual_encoders import DualEncoderSpace

WIDTH = 512


def clock(work: Callable[[], Any]) -> float:
    """Time one call, in seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratios(
    plain: Callable[[], Any], ours: Callable[[], Any], rounds: int, before: Callable[[], Any] = lambda: None
) -> dict[str, float]:
    """Time both in turn after one to warm up, each first in every other round; `before` each, something that is not timed.

    Returns:
        median seconds of either, and the median over rounds of the plain way's time over ours.
    """
    times = []
    for turn in range(rounds + 1):
        seconds = {}
        for way in (plain, ours) if turn % 2 else (ours, plain):
            before()
            seconds[way] = clock(way)
        if turn:
            times.append((seconds[plain], seconds[ours]))
    before()
    return {
        "plain_seconds": round(median(a for a, _ in times), 3),
        "ours_seconds": round(median(b for _, b in times), 3),
        "plain_over_ours": round(median(a / b for a, b in times), 3),
    }


def embedding(folder: Path, part: float, rounds: int) -> Iterator[dict[str, Any]]:
    """Compare `cmcr.embed` with a loop over the bare network, whose inputs were prepared beforehand."""
    transformers: Any = import_module("transformers")
    sys.path.insert(0, str(Path(__file__).parent))
    neighbour: Any = import_module("encode_throughput")  # no package holds the benchmarks
    neighbour.write_model(folder / "clip", 12)
    clip = DualEncoderSpace("clip", model=folder / "clip", device="cpu")
    pictures = folder / "pictures"
    pictures.mkdir()
    files = neighbour.write_pictures(pictures, max(32, int(256 * part)), 480)
    model = transformers.CLIPModel.from_pretrained(folder / "clip").eval()
    prepare = clip._tower("image").decode
    ready = [prepare(file)["pixel_values"] for file in files]

    def bare() -> None:
        with torch.no_grad():
            for start in range(0, len(ready), 16):
                batch = torch.from_numpy(np.stack(ready[start : start + 16]))
                model.get_image_features(pixel_values=batch).pooler_output.numpy()

    numbers = iter(range(1000))
    yield {
        "figure": "embedding of pictures, CLIP ViT-B/32",
        "items": len(files),
        **ratios(bare, lambda: embed(clip, "image", pictures, folder / f"m{next(numbers)}", batch_size=16), rounds),
    }
    texts = write_texts(
        np.random.default_rng(0).integers(0, 1000, max(2000, int(50_000 * part))), np.random.default_rng(1)
    )
    lines = folder / "texts.txt"
    lines.write_text("\n".join(texts), encoding="utf-8")
    mini: Any = space("mini-clip")
    tokens = import_module("cmcr.spaces.mini.space").tokens_of
    network = mini._networks["text"]
    batches = [tokens(texts[start : start + 256]) for start in range(0, len(texts), 256)]

    def bare_texts() -> None:
        with torch.no_grad():
            for batch in batches:
                network(batch).numpy()

    yield {
        "figure": "embedding of texts, mini-clip",
        "items": len(texts),
        **ratios(bare_texts, lambda: embed(mini, "text", lines, folder / f"m{next(numbers)}", batch_size=256), rounds),
    }


_PEAK = """
import resource, sys
from cmcr import embed
embed("mini-clip", "text", sys.argv[1], sys.argv[2], batch_size=256)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024) / 1.0)
"""


def ram(folder: Path, part: float, rounds: int) -> Iterator[dict[str, Any]]:
    """Compare the peak RAM of a process that embeds few texts with that of one that embeds many."""
    peaks = {}
    for count in (10_000, int(1_000_000 * part)):
        lines = folder / f"{count}.txt"
        texts = write_texts(np.random.default_rng(0).integers(0, 1000, count), np.random.default_rng(1))
        lines.write_text("\n".join(texts), encoding="utf-8")
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, lines, folder / f"m{count}"], check=True, capture_output=True, text=True
        )
        peaks[count] = float(done.stdout)
        yield {
            "figure": "peak RAM, mini-clip texts",
            "items": count,
            "MiB": round(peaks[count], 1),
            "seconds": round(time.perf_counter() - start, 1),
        }
    few, many = peaks.values()
    yield {"figure": "growth of peak RAM", "MiB": round(many - few, 1), "times": round(many / few, 3)}


def write(folder: Path, part: float, rounds: int) -> Iterator[dict[str, Any]]:
    """Compare `write_memory` with writing the same bytes into one file and flushing it to the disk."""
    rows = np.random.default_rng(0).standard_normal((int(1_000_000 * part), WIDTH), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for dtype, given in (("float16", rows.astype(np.float16)), ("float32", rows)):
        numbers = iter(range(1000))

        def plain(given: Any = given, numbers: Iterator[int] = numbers) -> None:
            path = folder / f"plain{next(numbers)}"
            with path.open("wb") as file:
                file.write(memoryview(given))
                file.flush()
                os.fsync(file.fileno())

        def ours(given: Any = given, dtype: str = dtype, numbers: Iterator[int] = numbers) -> None:
            out = folder / f"m{next(numbers)}"
            write_memory(out, given, space="x", modality="text", dtype=dtype)

        def before(given: Any = given) -> None:
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            # A virtual machine gives free memory back to its host: who comes first would pay for having it again.
            np.empty(given.nbytes + 2**28, dtype=np.uint8)[::4096] = 0

        yield {
            "figure": f"writing {dtype} rows",
            "rows": len(given),
            "MB": round(given.nbytes / 1e6),
            **ratios(plain, ours, rounds, before),
        }


def read(folder: Path, part: float, rounds: int) -> Iterator[dict[str, Any]]:
    """Compare reading random rows with numpy's memory map, both as float32, with the files in the system's cache."""
    count = int(1_000_000 * part)
    rows = np.random.default_rng(0).standard_normal((count, WIDTH), dtype=np.float32).astype(np.float16)
    np.save(folder / "rows.npy", rows)
    write_memory(folder / "m", rows, space="x", modality="text", dtype="float16")
    del rows
    mapped = np.load(folder / "rows.npy", mmap_mode="r")
    memory = Memory(folder / "m")
    assert len(memory) == count
    rng = np.random.default_rng(1)
    for at_once in (1, 32, 4096):
        draws = rng.integers(0, count, (max(1, 20_000 // at_once), at_once))

        def plain(draws: Any = draws) -> None:
            for positions in draws:
                mapped[positions[0] if len(positions) == 1 else positions].astype(np.float32)

        def ours(draws: Any = draws) -> None:
            for positions in draws:
                memory[int(positions[0]) if len(positions) == 1 else positions]

        yield {"figure": "random rows", "at_once": at_once, "rows": count, **ratios(plain, ours, max(rounds, 5))}


def main() -> None:
    """Measure what is asked for in a temporary folder beside the working directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = {"embedding": embedding, "ram": ram, "write": write, "read": read}
    parser.add_argument("measure", choices=measures, nargs="*", default=list(measures))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    arguments = parser.parse_args()
    for name in arguments.measure:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            for line in measures[name](Path(folder), 0.02 if arguments.small else 1.0, arguments.rounds):
                print(json.dumps({**line, "threads": torch.get_num_threads()}), flush=True)


if __name__ == "__main__":
    main()

"""Peak memory of a semantic consistency against the rows of a memory that lies on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import cmcr
from cmcr.arrays import all_rows
from cmcr.connection.enhancement import semantic_consistency
from cmcr.engine.device import ram_bytes
from side_by_side import consistency
from side_by_side.measuring import Line, Run, random_rows
from side_by_side.peaks import peak_of, raised_by

QUERIES = 512
_TINY = 256  # rows of the memory that the baseline is measured with
_BLOCK = 65_536


def measure(run: Run) -> Iterator[Line]:
    """Measure ours in both precisions, and the naive way as long as it fits in RAM."""
    for rows in (1000,) if run.small else (65_536, 262_144, 2**20):
        with tempfile.TemporaryDirectory() as folder:
            for name, count in (("memory", rows), ("tiny", _TINY)):
                blocks = partial(_blocks, count, run.width)
                cmcr.write_memory(Path(folder) / name, blocks, space="random", modality="image", dtype="float16")
            # Rows in float32, logits, and twice that for softmax and what lies between.
            needed = 4 * rows * (run.width + 3 * QUERIES)
            for way in ("naive", "ours_float32", "ours_bfloat16"):
                line = {"part": "memory", "way": way, "queries": QUERIES, "memory_rows": rows, "width": run.width}
                if way == "naive" and needed > ram_bytes() / 2:
                    yield {**line, "left_out": f"needs {needed / 2**30:.1f} GiB, more than half of the RAM"}
                    continue
                yield {**line, "peak_mib": peak_of("memory", way=way, folder=folder, device=str(run.device))}


def _blocks(rows: int, width: int) -> Iterator[Tensor]:
    return (
        random_rows(min(_BLOCK, rows - start), width, start, torch.device("cpu")) for start in range(0, rows, _BLOCK)
    )


def work(way: str, folder: str, device: str) -> float:
    """Measure one way here: beyond the same on a tiny memory."""
    tiny, memory = (cmcr.Memory(Path(folder) / name) for name in ("tiny", "memory"))
    where = torch.device(device)
    queries = random_rows(QUERIES, memory.shape[1], 1, where)
    if way == "naive":

        def means(rows: cmcr.Memory) -> Tensor:
            return consistency.naive(queries, all_rows(rows).to(where))
    else:

        def means(rows: cmcr.Memory) -> Tensor:
            return semantic_consistency(queries, rows, precision="bfloat16" if way == "ours_bfloat16" else "float32")

    return raised_by(lambda: means(tiny), lambda: means(memory), where)

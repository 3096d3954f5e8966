"""Makes small memories, and reads them back with nothing of cmcr: a twin from the description of the files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from cmcr.memories.layout import Origin, Quarantined
from cmcr.memories.survey import survey
from cmcr.memories.writer import open_writer

ORIGIN = Origin(
    space="mine", modality="text", fingerprint="0123456789abcdef", model="a/model", revision="c0ffee", dtype="float32"
)


def origin(**changes):
    return Origin(**{**ORIGIN.model_dump(), **changes})


def surveyed(ids, shard_items=4, mark=b""):
    return survey(lambda: ((id_, mark) for id_ in ids), shard_items, "a list")


def unit(count, width=5, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def store(folder, rows, *, shard_items=4, bad=(), append=False, ids=None, **changes):
    """Write rows as a memory; the items at the positions `bad` have no row. Returns the contents."""
    total = len(rows) + len(bad)
    names = ids or [f"item-{position}" for position in range(total)]
    rows = iter(rows)
    made = origin(**changes)
    with open_writer(folder, made, surveyed(names, shard_items), shard_items=shard_items, append=append) as writer:
        for number in writer.missing:
            span = writer.items_of(number)
            good = [position for position in span if position not in bad]
            block = [torch.as_tensor(next(rows)) for _ in good]
            writer.write(
                number,
                torch.stack(block) if block else torch.empty(0, 0),
                [(names[position], f"list:{position}") for position in good],
                [bad_item(names[p], p) for p in span if p in bad],
            )
        return writer.finish()


def bad_item(name, position):
    return Quarantined(id=name, source=f"list:{position}", position=position, reason=f"bad {position}")


def twin_rows(folder):
    """Read all rows by hand: eight bytes of length, a JSON header, then the numbers."""
    manifest = json.loads((Path(folder) / "config.json").read_text())
    blocks = []
    for shard in manifest["shards"]:
        content = (Path(folder) / f"{shard['name']}.safetensors").read_bytes()
        length = int.from_bytes(content[:8], "little")
        entry = json.loads(content[8 : 8 + length])["embeddings"]
        start, stop = entry["data_offsets"]
        raw = content[8 + length :][start:stop]
        if entry["dtype"] == "BF16":
            halves = np.zeros((len(raw) // 2, 4), dtype=np.uint8)
            halves[:, 2:] = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 2)  # the upper half of a float32
            numbers = np.frombuffer(halves.tobytes(), dtype="<f4")
        else:
            numbers = np.frombuffer(raw, dtype={"F16": "<f2", "F32": "<f4"}[entry["dtype"]]).astype(np.float32)
        blocks.append(numbers.reshape(entry["shape"]))
    return np.concatenate([block for block in blocks if len(block)])


def twin_ids(folder):
    manifest = json.loads((Path(folder) / "config.json").read_text())
    lines = []
    for shard in manifest["shards"]:
        lines += (Path(folder) / f"{shard['name']}.items.jsonl").read_text("utf-8").split("\n")
    return [json.loads(line)["id"] for line in lines if line]


@pytest.fixture(scope="module", autouse=True)
def unflushed():
    """Spare the disk: what a crash leaves is tested elsewhere. Imported by the modules that make many memories."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield

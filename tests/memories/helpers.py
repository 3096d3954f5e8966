"""What the tests of memories share: small memories, inputs of the miniature world, and what they left on disk."""

import hashlib
import json
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image

import cmcr
from cmcr.data.numbers import draw_pictures, sample_point_clouds, speak_sounds, write_texts
from cmcr.memories.layout import Origin, Quarantined
from cmcr.memories.survey import survey
from cmcr.memories.writer import open_writer

SPACE_OF = {"image": "mini-clip", "text": "mini-clip", "audio": "mini-clap", "point_cloud": "mini-ulip"}
ORIGIN = Origin(
    space="mine", modality="text", fingerprint="0123456789abcdef", model="a/model", revision="c0ffee", dtype="float32"
)


def origin(**changes):
    return Origin(**{**ORIGIN.model_dump(), **changes})


def surveyed(ids, shard_items=4):
    return survey(lambda: ((id_, b"") for id_ in ids), shard_items, "a list")


def unit(count, width=5, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def bad_item(name, position):
    return Quarantined(id=name, source=f"list:{position}", position=position, reason=f"bad {position}")


def store(folder, rows, *, shard_items=4, bad=(), numbers=None, append=False, ids=None, **changes):
    """Write a memory whose items at the positions `bad` have no row; of `numbers` alone, an unfinished one."""
    total = len(rows) + len(bad)
    names = ids or [f"item-{position}" for position in range(total)]
    row_of = dict(zip([position for position in range(total) if position not in bad], rows, strict=True))
    found, made = surveyed(names, shard_items), origin(**changes)
    with open_writer(folder, made, found, shard_items=shard_items, append=append) as writer:
        for number in writer.missing if numbers is None else numbers:
            span = writer.items_of(number)
            good = [position for position in span if position not in bad]
            writer.write(
                number,
                torch.as_tensor(np.array([row_of[position] for position in good])) if good else torch.empty(0, 0),
                [(names[position], f"list:{position}") for position in good],
                [bad_item(names[position], position) for position in span if position in bad],
            )
        return writer.finish() if numbers is None else None


def rows_on_disk(folder):
    """Read all rows with nothing of cmcr: eight bytes of length, a JSON header, then the numbers."""
    manifest = json.loads((Path(folder) / "config.json").read_text())
    blocks = []
    for shard in manifest["shards"]:
        content = (Path(folder) / f"{shard['name']}.safetensors").read_bytes()
        length = int.from_bytes(content[:8], "little")
        entry = json.loads(content[8 : 8 + length])["embeddings"]
        start, stop = entry["data_offsets"]
        raw = content[8 + length :][start:stop]
        if entry["dtype"] == "BF16":  # the upper half of a float32
            numbers = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            numbers = np.frombuffer(raw, {"F16": "<f2", "F32": "<f4"}[entry["dtype"]]).astype(np.float32)
        blocks.append(numbers.reshape(entry["shape"]))
    return np.concatenate([block for block in blocks if len(block)])


def tree_of(folder):
    """Hash everything in a folder, hidden files too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(Path(folder).rglob("*"))
    }


def write_folder(modality, folder, count):
    """Write items of the miniature world; return what `encode` takes, in the order of the list."""
    folder.mkdir(parents=True)
    numbers, rng = np.arange(100, 100 + count), np.random.default_rng(0)
    if modality == "text":
        texts = write_texts(numbers, rng)
        for n, text in enumerate(texts):
            (folder / f"{n}.txt").write_text(text)
        return texts
    make, ending, save = {
        "image": (draw_pictures, "png", lambda path, item: Image.fromarray(item).save(path)),
        "audio": (speak_sounds, "wav", lambda path, item: soundfile.write(path, item, 8000, subtype="FLOAT")),
        "point_cloud": (sample_point_clouds, "npy", np.save),
    }[modality]
    paths = [folder / f"{n}.{ending}" for n in range(count)]
    for path, item in zip(paths, make(numbers, "test", rng), strict=True):
        save(path, item)
    return paths


def write_lines(path, texts):
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def assert_encoded(memory, modality, items):
    """Compare with the rows of `encode`, within a step of float16 below 1."""
    expected = cmcr.space(SPACE_OF[modality]).encode(list(items), modality)
    np.testing.assert_allclose(memory[:], expected, rtol=0, atol=6e-4 if memory.dtype == "float16" else 1e-6)


def reasons(memory):
    return {item.id: item.reason for item in memory.quarantine()}


class Stop(Exception):  # noqa: N818 - not an error: whoever runs it has had enough
    pass


def stop_at(event, count=1):
    """Make an `on_event` that stops a run at the n-th event of a kind."""
    seen = []

    def on_event(name, facts):
        seen.append(name)
        if seen.count(event) == count:
            raise Stop

    return on_event

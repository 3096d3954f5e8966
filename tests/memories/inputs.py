"""Inputs of the miniature world as folders and lists, and what embedding did with them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import cmcr
from cmcr.data.numbers import draw_pictures, sample_point_clouds, speak_sounds, write_texts

SPACE_OF = {"image": "mini-clip", "text": "mini-clip", "audio": "mini-clap", "point_cloud": "mini-ulip"}


def numbers(count):
    return np.arange(100, 100 + count), np.random.default_rng(0)


def write_folder(modality, folder, count=5):
    """Write good items; return what `encode` takes, in the order of the list."""
    folder.mkdir(parents=True, exist_ok=True)
    of, rng = numbers(count)
    if modality == "text":
        texts = write_texts(of, rng)
        for n, text in enumerate(texts):
            (folder / f"good{n}.txt").write_text(text)
        return texts
    paths = []
    drawn = {
        "image": lambda: draw_pictures(of, "test", rng),
        "audio": lambda: speak_sounds(of, "test", rng),
        "point_cloud": lambda: sample_point_clouds(of, "test", rng),
    }[modality]()
    for n, item in enumerate(drawn):
        path = folder / f"good{n}"
        if modality == "image":
            path = path.with_suffix(".png")
            Image.fromarray(item).save(path)
        elif modality == "audio":
            path = path.with_suffix(".wav")
            soundfile.write(path, item, 8000, subtype="FLOAT")
        else:
            path = path.with_suffix(".npy")
            np.save(path, item)
        paths.append(path)
    return paths


def write_lines(path, texts):
    Path(path).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def half(rows):
    return np.asarray(rows).astype(np.float16).astype(np.float32)


def encoded(modality, items):
    return cmcr.space(SPACE_OF[modality]).encode(list(items), modality)


def reasons(memory):
    return {item.id: item.reason for item in memory.quarantine()}


def files_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def tables_of(folder):
    """The lines of all tables of a memory, by kind."""
    return {
        kind: [json.loads(line) for path in sorted(Path(folder).glob(f"*.{kind}.jsonl")) for line in lines_of(path)]
        for kind in ("items", "quarantine")
    }


def lines_of(path):
    return path.read_text("utf-8").split("\n")[:-1]


@pytest.fixture(scope="module", autouse=True)
def unflushed():
    """Spare the disk: what a crash leaves is tested elsewhere. Imported by the modules that make many memories."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield

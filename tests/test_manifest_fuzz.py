"""Manifests, receipts and results that were changed in every way: each opens, or is refused by an error of cmcr."""

import json
import os
import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import cmcr
from cmcr import connecting
from cmcr.artefacts import describe
from cmcr.errors import CmcrError, FormatError, IntegrityError
from cmcr.files import JSON_BYTES, MANIFEST, sha256_of, signed, write_manifest, write_signed
from cmcr.memories.layout import read_plan
from cmcr.memories.shards import finished_shard
from cmcr.search.layout import open_folder
from memories.helpers import store, unit

TRIED = 150  # of each kind
HUGE, ENDLESS, DEEP = (
    "9" * 5000,
    "1e999",
    "[" * 5000 + "]" * 5000,
)  # as JSON has them, Python's json does not write them
IDENTITY = {"seed": 0, "rows": ["a", 1.5]}
VALUES = [None, True, -1, 2**70, 0.5, "x", "../../x", "", [], {}, [[]], {"x": 1}, "@HUGE@", "@ENDLESS@", "@DEEP@"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One small artefact of each kind: the JSON file that is changed, and what opens it whole."""
    here = tmp_path_factory.mktemp("artefacts")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        memories = []
        for seed, (space, modality) in enumerate((("a", "text"), ("b", "text"), ("a", "image"), ("b", "audio"))):
            ids, options = [f"{modality}-{n}" for n in range(40)], {"space": space, "modality": modality}
            folder = here / f"{space}-{modality}"
            memories.append(cmcr.write_memory(folder, unit(40, 6, seed), ids, shard_items=20, **options))
        connection = cmcr.connect(*cmcr.Memory.by_space(memories), method="ridge", show_progress_bar=False)
        connection.save(here / "connection")
        cmcr.index(connection, [memory.folders[0] for memory in memories], here / "index")
        store(here / "memory", unit(11, 6), bad=(5,), dtype="float16")
        store(here / "begun", unit(11, 6), bad=(5,), numbers=(0, 1))
        state = SimpleNamespace(step=3, check_loss=lambda: None, tensors=lambda: {"x": torch.zeros(2)})
        connecting.KeptTraining(here / "training", IDENTITY).write(state)
    figure = {"value": 0.5, "low": 0.25, "high": None, "n": 8}
    of = {"method": "ridge", "seed": 0, "overlap": "text", "weights_sha256": "0" * 64}
    evaluation = {
        "format": "cmcr evaluation", "version": 1, "run": "retrieval/x", "seed": 0, "data": {"name": "d"}, "connection": of,
        "figures": {"connection": {"R@1": figure}, "other": {"R@1": figure}}, "kept": {"x": 0.5},
    }  # fmt: skip
    ablations = {
        "format": "cmcr ablations", "version": 1, "seeds": [0], "made_from": {"run": "r"}, "summary": {},
        "cells": [{"ablation": "full method", "seed": 0, "figures": {"x": 0.5}, "seconds": 1.5}],
    }  # fmt: skip
    write_signed(here / "evaluation.json", evaluation)
    write_signed(here / "ablations.json", ablations)
    return here


def rows_of(folder):
    memory = cmcr.Memory(folder)
    return [memory.contents, memory.ids, memory.quarantine(), memory[:].tolist(), describe(folder)]


def training(folder):
    return sorted(connecting.KeptTraining(folder, IDENTITY).read() or {})


KINDS = {
    "memory": ("memory/config.json", rows_of),
    "connection": ("connection/config.json", describe),
    "index": ("index/config.json", lambda folder: repr(open_folder(folder).manifest) + repr(describe(folder))),
    "plan": ("begun/.run/plan.json", lambda folder: read_plan(folder.parent)),
    "receipt": ("begun/.run/shard-00001.json", lambda folder: finished_shard(folder.parent, "shard-00001")),
    "training": ("training/config.json", training),
    "evaluation": ("evaluation.json", lambda folder: describe(folder / "evaluation.json")),
    "ablations": ("ablations.json", lambda folder: describe(folder / "ablations.json")),
}  # fmt: skip


def places(value, path=()):
    """Give the path of everything in a JSON value."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def changed(content, rng):
    """Change one place of a manifest in one way."""
    content = json.loads(json.dumps(content))
    path = rng.choice([place for place in places(content) if place])
    *above, last = path
    within = content
    for key in above:
        within = within[key]
    way = rng.randrange(len(VALUES) + 2)
    if way == len(VALUES):
        del within[last]
    elif way > len(VALUES) and isinstance(within[last], dict):
        within[last]["unknown"] = 1
    else:
        within[last] = VALUES[way % len(VALUES)]
    return content, path


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_manifest_opens_or_is_refused(made, kind):
    name, opened = KINDS[kind]
    path = made / name
    whole = path.read_bytes()
    expected, content, rng = opened(path.parent), json.loads(whole), random.Random(kind)
    refused = 0
    try:
        for number in range(TRIED):
            other, where = changed(content, rng)
            text = signed(other).decode() if number % 4 else json.dumps(other)  # most with a hash that is right
            for word, means in (("@HUGE@", HUGE), ("@ENDLESS@", ENDLESS), ("@DEEP@", DEEP)):
                text = text.replace(f'"{word}"', means)
            path.write_text(text)
            try:
                found = opened(path.parent)
            except CmcrError:
                refused += 1
                continue
            if not number % 4:
                assert found in (expected, None), (where, "was changed, and not noticed")
    finally:
        path.write_bytes(whole)
    assert refused > TRIED / 3 or kind == "receipt"  # of which a damaged one counts as none
    assert opened(path.parent) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_json_object_is_refused(made, kind):
    name, opened = KINDS[kind]
    path = made / name
    whole = path.read_bytes()
    for content in (b"", b"{", b"[]", b"[" * 10**5, b'{"a":' * 10**5, b"\xff", b"\0" * 99, b" " * (JSON_BYTES + 1)):
        path.write_bytes(content)
        if kind == "receipt":
            assert opened(path.parent) is None
        else:
            with pytest.raises((FormatError, IntegrityError)):
                opened(path.parent)
    path.write_bytes(whole)


@pytest.mark.parametrize("change", [{}, {"1.live": np.ones(3, dtype=bool)}])
def test_arrays_of_an_index_that_are_not_of_its_items_are_refused(made, tmp_path, change):
    folder = shutil.copytree(made / "index", tmp_path / "index")
    manifest = json.loads((folder / MANIFEST).read_text())
    path = folder / manifest["arrays"]
    arrays = {name: array for name, array in load_file(path).items() if name != "1.live"} | change
    save_file(arrays, path)
    manifest["sha256"][path.name], manifest["bytes"][path.name] = sha256_of(path), path.stat().st_size
    write_manifest(folder, manifest)
    with pytest.raises(IntegrityError, match="corpus 1"):
        open_folder(folder)

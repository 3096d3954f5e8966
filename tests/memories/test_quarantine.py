"""Folders with every kind of broken file: the good ones are embedded, the others are named, and can be mended."""

import re
from functools import partial
from pathlib import Path

import inputs
import numpy as np
import pytest
from broken import BROKEN, cloud, npy, saved, wav, write_broken
from inputs import SPACE_OF, encoded, half, reasons, tables_of, write_folder
from PIL import Image

from cmcr.memories.embed import embed

unflushed = inputs.unflushed

OPTIONS = {"shard_items": 6, "batch_size": 4}
POINTS = "".join(f"{x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in cloud())


@pytest.fixture(params=BROKEN)
def folder(request, tmp_path, monkeypatch):
    """A folder with good and broken files; the good ones."""
    good = write_folder(request.param, tmp_path / "in")
    with monkeypatch.context() as refusing:
        write_broken(request.param, tmp_path / "in", refusing)
        yield request.param, tmp_path / "in", good, refusing


def mend(modality, folder, names):
    for name in names:
        path = folder / name
        path.unlink()
        seed = len(name) + sum(map(ord, name))
        picture = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 32), dtype=np.uint8))
        noise = np.random.default_rng(seed).uniform(-0.5, 0.5, 4000)
        faces = "".join(f"f {n} {n + 1} {n + 2}\n" for n in range(1, 40))
        ply = "ply\nformat ascii 1.0\nelement vertex 50\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
        kinds = {
            ".txt": f"number {seed}".encode, ".wav": partial(wav, noise), ".npy": lambda: npy(cloud()),
            ".mp3": partial(wav, noise), ".flac": partial(wav, noise), ".npz": lambda: b"", ".xyz": POINTS.encode,
            ".ply": (ply + POINTS).encode,
            ".obj": ("".join(f"v {line}\n" for line in POINTS.splitlines()) + faces).encode,
        }  # fmt: skip
        kind = {".jpg": "JPEG", ".gif": "GIF", ".tif": "TIFF"}.get(path.suffix, "PNG")
        made = kinds.get(path.suffix)
        path.write_bytes(made() if made else saved(kind, picture))
        if path.suffix == ".npz":
            np.savez(path, points=cloud())


def test_there_are_many_kinds():
    assert sum(map(len, BROKEN.values())) >= 40


def test_good_items_are_embedded_broken_ones_named_and_mended_ones_added(folder, tmp_path):
    modality, where, good, refusing = folder
    memory = embed(SPACE_OF[modality], modality, where, tmp_path / "out", **OPTIONS)
    broken = BROKEN[modality]
    assert set(reasons(memory)) == set(broken)
    for name, reason in reasons(memory).items():
        assert re.search(broken[name][1], reason), f"{name}: {reason}"
    order = sorted(path.name for path in where.iterdir() if path.name.split(".")[0] != "folder")
    assert [(item.source, item.position) for item in memory.quarantine()] == [
        (name, position) for position, name in enumerate(order) if name in broken
    ]
    assert memory.ids == [name for name in order if name not in broken]
    np.testing.assert_allclose(memory[:], half(encoded(modality, good)), rtol=0, atol=5e-4)

    refusing.undo()
    left = sorted(broken)[0]
    mend(modality, where, set(broken) - {left})
    told = []
    again = {"retry_quarantined": True, "on_event": lambda *event: told.append(event)}
    memory = embed(SPACE_OF[modality], modality, where, tmp_path / "out", batch_size=3, **again)
    assert list(reasons(memory)) == [left]
    assert told[0] == ("started", {"items": len(broken), "done": 0, "shards": 0})
    assert told[-1] == ("finished", {"rows": len(order) - 1, "quarantined": 1, "new": len(broken) - 1})
    mend(modality, where, [left])
    memory = embed(SPACE_OF[modality], modality, where, tmp_path / "out", retry_quarantined=True)
    mended = embed(SPACE_OF[modality], modality, where, tmp_path / "mended", **OPTIONS)
    assert memory.ids == mended.ids == order
    assert tables_of(tmp_path / "out") == tables_of(tmp_path / "mended")
    np.testing.assert_allclose(memory[:], mended[:], rtol=0, atol=5e-4)
    assert len(memory) - len(good) == len(broken)
    assert not list((tmp_path / "out").glob("*quarantine*"))


def test_odd_pictures_that_are_pictures(tmp_path):
    """A strip and a foreign ending can be shown, so they are embedded."""
    where = tmp_path / "in"
    where.mkdir()
    (where / "strip.png").write_bytes(saved("PNG", Image.new("L", (5000, 1), 200)))
    (where / "jpeg.png").write_bytes(saved("JPEG"))
    memory = embed("mini-clip", "image", where, tmp_path / "out")
    assert memory.ids == ["jpeg.png", "strip.png"]
    paths = [where / name for name in memory.ids]
    np.testing.assert_allclose(memory[:], half(encoded("image", paths)), rtol=0, atol=5e-4)


def test_lines_that_are_no_texts(tmp_path):
    lines = [
        b'{"text": "one"}', b'{"text": "\\ud800x"}', b'{"text": ""}', b'{"text": 7}', b'{"txt": "a"}', b"{torn", b"[1]",
        b'{"text": "caf\xe9"}', b'{"text": "two"}',
    ]  # fmt: skip
    Path(tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    memory = embed("mini-clip", "text", tmp_path / "in.jsonl", tmp_path / "out")
    assert memory.ids == ["in.jsonl:1", "in.jsonl:9"]
    said = reasons(memory)
    for row, reason in {
        2: r"holds a lone surrogate \(U\+D800\) at character 0", 3: "empty; there is nothing", 4: "expected a text, got int",
        5: "expected a text, got nothing", 6: "not JSON", 7: "expected a JSON object, got list", 8: "not UTF-8: byte 0xE9",
    }.items():  # fmt: skip
        assert re.search(reason, said[f"in.jsonl:{row}"]), said

"""Items that cannot be embedded go to quarantine by name, and complete the memory once they are fixed."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import SPACE_OF, assert_encoded, reasons, write_folder, write_lines

import cmcr
from cmcr.errors import ConfigError, DimensionError, LockedError, ResumeError
from cmcr.memories.embed import embed
from cmcr.memories.writer import locked

GIVEN = ["one", "", "two", "three", "", "", "", "four"]
FIXED = ["one", "five", "two", "three", "", "six", "seven", "four"]


@pytest.mark.parametrize(
    ("modality", "torn", "empty", "gone"),
    [
        ("image", "cannot be decoded", "not a picture", "dead link"),
        ("audio", "cut short", "cannot be decoded", "dead link"),
        ("point_cloud", "not a plain array", "not a plain array", "dead link"),
        ("text", "not UTF-8", "empty", "cannot be read"),
    ],
)
def test_broken_files_are_named_and_fixed_ones_added(tmp_path, monkeypatch, modality, torn, empty, gone):
    space, folder, options = SPACE_OF[modality], tmp_path / "in", {"shard_items": 3, "batch_size": 2}
    items = write_folder(modality, folder, 8)
    (folder / "folder").with_suffix(next(folder.iterdir()).suffix).mkdir()
    paths = {int(path.stem): path for path in folder.iterdir() if path.is_file()}
    whole = {n: path.read_bytes() for n, path in paths.items()}
    paths[0].write_bytes(b"\xff" if modality == "text" else whole[0][: len(whole[0]) // 2])
    paths[3].write_bytes(b"")
    paths[7].unlink()
    paths[7].symlink_to("nowhere")
    access = os.access  # root is refused nothing
    monkeypatch.setattr(os, "access", lambda path, *a, **k: Path(path).stem != "4" and access(path, *a, **k))

    memory = embed(space, modality, folder, tmp_path / "out", **options)
    expected = {0: torn, 3: empty, 4: "permission denied|cannot be read", 7: gone}
    assert [(item.id, item.source, item.position) for item in memory.quarantine()] == [
        (paths[n].name, paths[n].name, n) for n in expected
    ]
    for n, reason in expected.items():
        assert re.search(reason, reasons(memory)[paths[n].name])
    assert_encoded(memory, modality, [item for n, item in enumerate(items) if n not in expected])

    monkeypatch.undo()
    paths[7].unlink()
    for left, fixed in ([0], [3, 4, 7]), ([], [0]):
        for n in fixed:
            paths[n].write_bytes(whole[n])
        memory = embed(space, modality, folder, tmp_path / "out", retry_quarantined=True, **options)
        assert list(reasons(memory)) == [paths[n].name for n in left]
    order = [1, 2, 5, 6, 3, 4, 7, 0]
    assert memory.ids == [paths[n].name for n in order]
    assert_encoded(memory, modality, [items[n] for n in order])


def test_lines_that_are_not_texts(tmp_path):
    lines = {
        b'{"text": "one"}': None, b'{"text": "\\ud800x"}': "surrogate", b'{"text": ""}': "empty", b'{"text": 7}': "got int",
        b'{"txt": "a"}': "got nothing", b"{torn": "not JSON", b"[1]": "got list", b'{"text": "caf\xe9"}': "not UTF-8",
        b'{"text": "a\\u0000"}': "NUL",
    }  # fmt: skip
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    found = reasons(embed("mini-clip", "text", tmp_path / "in.jsonl", tmp_path / "out"))
    assert list(found) == [f"in.jsonl:{n}" for n in range(2, 10)]
    for expected, reason in zip(list(lines.values())[1:], found.values(), strict=True):
        assert expected in reason


@pytest.fixture
def lines(tmp_path):
    """A list, embedded, and fixed since but for one item."""
    path = write_lines(tmp_path / "in.txt", GIVEN)
    embed("mini-clip", "text", path, tmp_path / "out", shard_items=2)
    return write_lines(path, FIXED)


def retry(lines, out, **options):
    return embed("mini-clip", "text", lines, out, retry_quarantined=True, **options)


def test_rows_that_can_be_made_now_are_appended_with_what_is_new(tmp_path, lines):
    memory = retry(write_lines(lines, [*FIXED, "nine"]), tmp_path / "out", shard_items=2)
    assert_encoded(memory, "text", ["one", "two", "three", "four", "five", "six", "seven", "nine"])
    assert memory.ids == [f"in.txt:{n}" for n in (1, 3, 4, 8, 2, 6, 7, 9)]
    assert list(reasons(memory)) == ["in.txt:5"]
    memory = retry(write_lines(lines, [text or "eight" for text in [*FIXED, "nine"]]), tmp_path / "out", shard_items=2)
    assert (memory.ids[-1], memory.quarantine()) == ("in.txt:5", [])


@pytest.mark.parametrize(("name", "rows"), [("in.txt", 4), ("other.txt", 8)])
def test_what_fails_again_stays_in_quarantine_once(tmp_path, lines, name, rows):
    before, events = cmcr.Memory(tmp_path / "out"), []
    memory = retry(write_lines(tmp_path / name, GIVEN), tmp_path / "out", on_event=lambda *event: events.append(event))
    assert len(memory) == rows
    assert [item.id for item in before.quarantine()] == [f"in.txt:{n}" for n in (2, 5, 6, 7)]
    assert len(memory.quarantine()) == events[-1][1]["quarantined"] == rows
    assert embed("mini-clip", "text", tmp_path / name, tmp_path / "out", append=True).ids == memory.ids


def test_several_memories_as_one_keep_the_quarantine_of_each(tmp_path, lines):
    retry(lines, tmp_path / "out")
    embed("mini-clip", "text", write_lines(lines, GIVEN), tmp_path / "other")
    both = cmcr.Memory(tmp_path / "out", tmp_path / "other")
    assert [item.id for item in both.quarantine()] == ["in.txt:5", *(f"in.txt:{n}" for n in (2, 5, 6, 7))]


def test_what_cannot_be_completed(tmp_path, lines):
    with pytest.raises(ConfigError, match="no finished memory"):
        retry(lines, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ResumeError, match="space was mini-clip, now mini-clap"):
        embed("mini-clap", "text", lines, tmp_path / "out", retry_quarantined=True)
    with locked(tmp_path / "out"), pytest.raises(LockedError):
        retry(lines, tmp_path / "out")


def test_rows_of_another_width_are_refused(tmp_path, lines):
    def fail(texts):
        if "" in texts:
            raise ValueError("empty")
        return np.ones((len(texts), 2))

    embed(cmcr.CustomSpace("b", text=fail, fingerprint="f"), "text", lines, tmp_path / "b")
    wider = cmcr.CustomSpace("b", text=lambda texts: np.ones((len(texts), 3)), fingerprint="f")
    with pytest.raises(DimensionError, match="3 wide"):
        embed(wider, "text", lines, tmp_path / "b", retry_quarantined=True)
    assert cmcr.Memory(tmp_path / "b").shape == (7, 2)

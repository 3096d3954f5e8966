"""Items that cannot be embedded go to quarantine by name, and complete the memory once they are fixed."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import SPACE_OF, Stop, assert_encoded, reasons, stop_at, tree_of, write_folder, write_lines

import cmcr
from cmcr.errors import ArtefactNotFoundError, ConfigError, DimensionError, FormatError, LockedError, ResumeError
from cmcr.memories.embed import embed
from cmcr.memories.writer import locked

GIVEN = ["one", "", "two", "three", "", "", "", "four"]
FIXED = ["one", "five", "two", "three", "", "six", "seven", "four"]


@pytest.mark.parametrize(
    ("modality", "torn", "empty", "gone"),
    [
        ("image", "cannot be decoded", "not a picture", "no such picture"),
        ("audio", "cut short", "cannot be decoded", "no such sound"),
        ("point_cloud", "not a plain array", "not a plain array", "no such point cloud"),
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
        memory = embed(space, modality, folder, tmp_path / "out", retry_quarantined=True, batch_size=2)
        assert list(reasons(memory)) == [paths[n].name for n in left]
    assert memory.ids == [paths[n].name for n in range(8)]
    assert_encoded(memory, modality, items)
    assert not list((tmp_path / "out").glob("*quarantine*"))


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


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_rows_come_where_they_belong(tmp_path, lines, batch_size):
    memory = retry(lines, tmp_path / "out", batch_size=batch_size)
    assert_encoded(memory, "text", filter(None, FIXED))
    assert memory.ids == [f"in.txt:{n}" for n, text in enumerate(FIXED, start=1) if text]
    names = [shard.name for shard in memory.contents[0].shards]
    assert names == ["shard-00000.1", "shard-00001", "shard-00002.1", "shard-00003.1"]
    assert {path.stem for path in (tmp_path / "out").glob("*.safetensors")} == set(names)
    write_lines(lines, [text or "eight" for text in FIXED])
    memory = retry(lines, tmp_path / "out")
    assert memory.ids == [f"in.txt:{n}" for n in range(1, 9)]
    assert memory.contents[0].shards[2].name == "shard-00002.2"


@pytest.mark.parametrize(("name", "tried"), [("in.txt", [4]), ("other.txt", [])])
def test_nothing_fixed_or_found_changes_nothing(tmp_path, lines, name, tried):
    before, events = tree_of(tmp_path / "out"), []
    retry(write_lines(tmp_path / name, GIVEN), tmp_path / "out", on_event=lambda *event: events.append(event))
    assert tree_of(tmp_path / "out") == before
    assert events == [
        ("started", {"items": 4, "done": 0, "shards": 0}),
        *(("items", {"count": count}) for count in tried),
        ("finished", {"rows": 4, "quarantined": 4, "new": 0}),
    ]


def test_an_append_under_way_is_not_thrown_away(tmp_path, lines):
    more, events = write_lines(tmp_path / "more.txt", ["nine", "ten", "eleven"]), []
    options = {"append": True, "shard_items": 1}
    with pytest.raises(Stop):
        embed("mini-clip", "text", more, tmp_path / "out", on_event=stop_at("shard", 2), **options)
    with pytest.raises(ResumeError, match="appended"):
        retry(lines, tmp_path / "out")
    embed("mini-clip", "text", more, tmp_path / "out", on_event=lambda *event: events.append(event), **options)
    assert events[0][1]["done"] == 2
    assert retry(lines, tmp_path / "out").shape == (10, 128)


def test_what_cannot_be_completed(tmp_path, lines):
    out = tmp_path / "out"
    with pytest.raises(Stop):
        embed("mini-clip", "text", lines, tmp_path / "begun", on_event=stop_at("started"))
    for folder, error in (("nowhere", ArtefactNotFoundError), ("begun", FormatError)):
        with pytest.raises(error, match=folder):
            retry(lines, tmp_path / folder)
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ConfigError, match="batch_size"):
        retry(lines, out, batch_size=0)
    with pytest.raises(ResumeError, match="space was mini-clip, now mini-clap"):
        embed("mini-clap", "text", lines, out, retry_quarantined=True)
    with pytest.raises(ConfigError, match="'audio'"):
        embed("mini-clip", "audio", lines, out, retry_quarantined=True)
    for other in ({"append": True}, {"engine": "ray"}):
        with pytest.raises(ConfigError, match="--append"):
            retry(lines, out, **other)
    with locked(out), pytest.raises(LockedError):
        retry(lines, out)


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

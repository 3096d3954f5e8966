"""Lists of items: what an input means, the order of files, and their ids."""

import os
import random

import numpy as np
import pytest

from cmcr.data.items import Selection, open_items, selection_of_pattern
from cmcr.errors import ConfigError, ReadError

NAMES = ["a.jpg", "a/z.jpg", "a b.jpg", "a-/b.jpg", "B.jpg", "ab.jpg", "a/b/c.jpg", "é.jpg", "u\u0308.jpg", "z/中.jpg"]


def make(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def ids(items):
    return [entry.id for entry in items.walk()]


def contents(items):
    return [entry.read() for entry in items.walk()]


def found(selection):
    return [relative for relative, _ in selection]


def test_a_selection_is_sorted_by_relative_paths_whatever_was_written_first(tmp_path):
    for seed in "012":
        make(tmp_path / seed, random.Random(seed).sample(NAMES, len(NAMES)))
        selection = Selection(tmp_path / seed)
        assert found(selection) == found(selection) == sorted(NAMES)
        assert all(path == tmp_path / seed / relative for relative, path in selection)


def test_a_selection_passes_over_hidden_files_and_loops(tmp_path):
    make(tmp_path, ["a/b.jpg", ".hidden/c.jpg", ".d.jpg", "elsewhere/e.jpg"])
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nothing")
    assert found(Selection(tmp_path)) == ["a/b.jpg", "a/other/e.jpg", "broken.jpg", "elsewhere/e.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", "a.jpg b.jpg"),
        ("?.jp*", "a.jpg b.jpg"),
        ("[!a].*", "b.jpg c.PNG"),
        ("**/*.jpg", "a.jpg b.jpg x/a.jpg x/y/a.jpg"),
        ("**", "a.jpg b.jpg c.PNG x/a.jpg x/y/a.jpg"),
        ("x/**/a.*", "a.jpg y/a.jpg"),
        ("*/a.jpg", "x/a.jpg"),
        ("**/y/**/a.jpg", "x/y/a.jpg"),
        ("**/**/a.jpg", "a.jpg x/a.jpg x/y/a.jpg"),
        (".h*", ".h.jpg"),
        ("*.png", ""),
    ],
)
def test_selection_of_pattern(tmp_path, pattern, expected):
    make(tmp_path, ["a.jpg", "b.jpg", "c.PNG", "x/a.jpg", "x/y/a.jpg", ".h.jpg", ".h/a.jpg"])
    assert found(selection_of_pattern(tmp_path / pattern)) == expected.split()
    assert selection_of_pattern(tmp_path / "a.jpg") is None


def test_a_walk_reads_one_folder_at_a_time_and_names_the_one_it_cannot_read(tmp_path, monkeypatch):
    make(tmp_path, [f"{folder}/{file}.jpg" for folder in "abcdef" for file in "xy"])
    scanned, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(path) or scandir(path))
    assert next(iter(Selection(tmp_path)))[0] == "a/x.jpg"
    assert scanned == [tmp_path, tmp_path / "a"]

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)  # a superuser may read everything
    with pytest.raises(ReadError, match=rf"Permission denied.*{tmp_path.name}"):
        list(Selection(tmp_path))


def test_a_folder_gives_its_files_and_counts_those_it_passes_over(tmp_path):
    make(tmp_path, ("b.JPG", "sub/a.png", "notes.md", "sub/list.json", "x.json", "Makefile"))
    items = open_items(tmp_path, "image")
    for _ in range(2):
        assert [(entry.id, entry.source) for entry in items.walk()] == [("b.JPG", "b.JPG"), ("sub/a.png", "sub/a.png")]
    assert contents(items) == [tmp_path / "b.JPG", tmp_path / "sub/a.png"]
    assert dict(items.ignored) == {".json": 2, ".md": 1, "no ending": 1}


def test_patterns_take_the_endings_of_the_modality_and_single_files_are_lists_of_one(tmp_path):
    make(tmp_path, ("a.weird", "b.jpg", "c.FLAC", "d[*].png", "d.txt"))
    assert ids(open_items(tmp_path / "*.[wj]*", "image")) == ["b.jpg"]
    assert contents(open_items(tmp_path / "c.FLAC", "audio")) == [tmp_path / "c.FLAC"]
    assert ids(open_items(tmp_path / "d[*].png", "image")) == ["d[*].png"]  # the name of a file, and no pattern
    (tmp_path / "d.txt").write_bytes(b"\xef\xbb\xbftwo\nlines\r\n")
    assert contents(open_items(tmp_path, "text")) == ["two\nlines"]  # one text a file
    assert contents(open_items(tmp_path / "*.txt", "point_cloud")) == [tmp_path / "d.txt"]  # a cloud, not a list


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_not_utf8_are_escaped_and_readable(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    items = open_items(tmp_path, "image")
    assert ids(items) == ["caf\\udce9.png"]
    assert contents(items)[0].read_bytes() == b"x"


def test_files_are_known_by_their_relative_names_alone(tmp_path, monkeypatch):
    photos = make(tmp_path / "photos", ["a.png"])
    monkeypatch.chdir(tmp_path)
    for given in (photos, "photos", "./photos/", "photos/*.png", "photos/../photos", "photos/a.png"):
        assert [(entry.id, entry.mark) for entry in open_items(given, "image").walk()] == [("a.png", b"")]
    monkeypatch.chdir(photos)
    assert ids(open_items(".", "image")) == ids(open_items("*", "image")) == ["a.png"]


@pytest.mark.parametrize(
    ("given", "modality", "options", "message"),
    [
        ("photos", "picture", {}, "unknown modality 'picture'"),
        ("", "image", {}, "expected a path"),
        (np.zeros((2, 3)), "image", {}, "write_memory"),
        ("photo", "image", {}, r"Did you mean photos\?"),
        ("photos/dgo.png", "image", {}, r"Did you mean photos/dog\.png\?"),
        ("a\0b", "image", {}, "no such file or folder"),
        ("photos/*.gif", "image", {}, "got no files"),
        ("photos/dog.png", "audio", {}, r"got \.png"),
        ("photos", "audio", {}, r"got \.png \(1\), \.csv \(1\).*pattern"),
        ("photos", "image", {"column": "a"}, "column was given"),
        ("pipe", "image", {}, "neither a file nor a folder"),
    ],
)
def test_inputs_that_are_no_lists(tmp_path, monkeypatch, given, modality, options, message):
    make(tmp_path, ["photos/dog.png", "photos/list.csv"])
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        open_items(given, modality, **options)

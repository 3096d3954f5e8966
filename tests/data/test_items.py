"""Lists of items: what an input means, the order of files, and their ids."""

import os
import random

import numpy as np
import pytest

from cmcr.data.items import Selection, open_items, selection_of_pattern
from cmcr.errors import ConfigError, ReadError, SampleError

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


@pytest.mark.parametrize("seed", range(3))
def test_a_selection_is_sorted_by_relative_paths_whatever_was_written_first(tmp_path, seed):
    make(tmp_path, random.Random(seed).sample(NAMES, len(NAMES)))
    selection = Selection(tmp_path)
    assert found(selection) == found(selection) == sorted(NAMES)
    assert all(path == tmp_path / relative for relative, path in selection)


def test_a_selection_passes_over_hidden_files_and_loops(tmp_path):
    make(tmp_path, ["a/b.jpg", ".hidden/c.jpg", ".d.jpg", "elsewhere/e.jpg"])
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nothing")
    assert found(Selection(tmp_path)) == ["a/b.jpg", "a/other/e.jpg", "broken.jpg", "elsewhere/e.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("?.jp*", ["a.jpg", "b.jpg"]),
        ("[!a].*", ["b.jpg", "c.PNG"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "x/a.jpg", "x/y/a.jpg"]),
        ("**", ["a.jpg", "b.jpg", "c.PNG", "x/a.jpg", "x/y/a.jpg"]),
        ("x/**/a.*", ["a.jpg", "y/a.jpg"]),
        ("*/a.jpg", ["x/a.jpg"]),
        ("**/y/**/a.jpg", ["x/y/a.jpg"]),
        ("**/**/a.jpg", ["a.jpg", "x/a.jpg", "x/y/a.jpg"]),
        (".h*", [".h.jpg"]),
        ("*", ["a.jpg", "b.jpg", "c.PNG"]),
        ("*.png", []),
    ],
)
def test_selection_of_pattern(tmp_path, pattern, expected):
    make(tmp_path, ["a.jpg", "b.jpg", "c.PNG", "x/a.jpg", "x/y/a.jpg", ".h.jpg", ".h/a.jpg"])
    assert found(selection_of_pattern(tmp_path / pattern)) == expected
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
    assert items.description == f"folder {tmp_path.name} (image files)"
    assert dict(items.ignored) == {}
    for _ in range(2):
        assert [(entry.id, entry.source) for entry in items.walk()] == [("b.JPG", "b.JPG"), ("sub/a.png", "sub/a.png")]
    assert contents(items) == [tmp_path / "b.JPG", tmp_path / "sub/a.png"]
    assert dict(items.ignored) == {".json": 2, ".md": 1, "no ending": 1}


def test_patterns_take_every_ending_and_single_files_are_lists_of_one(tmp_path):
    make(tmp_path, ("a.weird", "b.jpg", "c.FLAC"))
    assert ids(open_items(tmp_path / "*.[wj]*", "image")) == ["a.weird", "b.jpg"]
    assert contents(open_items(tmp_path / "c.FLAC", "audio")) == [tmp_path / "c.FLAC"]
    (tmp_path / "a.txt").write_text("0 0 0\n")  # of point clouds a cloud, not a list
    assert contents(open_items(tmp_path / "*.txt", "point_cloud")) == [tmp_path / "a.txt"]


def test_a_name_with_brackets_that_is_there_is_no_pattern(tmp_path):
    folder = make(tmp_path / "photos[1]", ["a[*].png"])
    assert ids(open_items(folder, "image")) == ids(open_items(folder / "a[*].png", "image")) == ["a[*].png"]


def test_files_of_text_are_one_text_each(tmp_path):
    for name, content in {"a": b"\xef\xbb\xbftwo\nlines\r\n", "b": b"x\ncaf\xe9", "c": b""}.items():
        (tmp_path / f"{name}.txt").write_bytes(content)
    (tmp_path / "d.txt").symlink_to(tmp_path / "nothing")
    a, b, c, d = contents(open_items(tmp_path, "text"))
    assert (a, c) == ("two\nlines", "")
    assert "b.txt: not UTF-8: line 2 holds the byte 0xE9" in str(b)
    assert isinstance(d, SampleError)


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


def test_folders_without_files_that_fit(tmp_path):
    with pytest.raises(ConfigError, match=r"files ending in \.wav.*got no files"):
        open_items(tmp_path, "audio")
    make(tmp_path, ("a.jpg", "b.jpg", "c.csv"))
    with pytest.raises(ConfigError, match=rf"got \.jpg \(2\), \.csv \(1\).*'{tmp_path.name}/\*\.csv'"):
        open_items(tmp_path, "audio")


def test_a_folder_that_vanishes_is_no_empty_run(tmp_path):
    folder = make(tmp_path / "photos", ["a.png"])
    items = open_items(folder, "image")
    (folder / "a.png").unlink()
    with pytest.raises(ConfigError, match="got no files"):
        contents(items)
    folder.rmdir()
    with pytest.raises(ReadError, match="photos"):
        ids(items)


@pytest.mark.parametrize(
    ("given", "modality", "message"),
    [
        ("photos", "picture", "unknown modality 'picture'"),
        ("", "image", "empty path"),
        (np.zeros((2, 3)), "image", "cmcr.write_memory"),
        ("photo", "image", r"holds no 'photo'\. Did you mean photos\?"),
        ("photos/dgo.png", "image", r"Did you mean photos/dog\.png\?"),
        ("nowhere/at/all.png", "image", r"holds no 'nowhere'\. Check the path"),
        ("a\0b", "image", "no such file or folder|not a path"),
        ("x" * 5000, "image", "not a path"),
        ("photos/*.gif", "image", "matches no files"),
        ("phots/*.png", "image", r"Did you mean photos\?"),
        ("photos/dog.png", "audio", r"expected a list .* got \.png"),
        ("pipe", "image", "neither a file nor a folder"),
    ],
)
def test_inputs_that_are_no_lists(tmp_path, monkeypatch, given, modality, message):
    make(tmp_path, ["photos/dog.png"])
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        open_items(given, modality)


@pytest.mark.parametrize("option", ["column", "id_column"])
def test_columns_of_what_has_none(tmp_path, option):
    with pytest.raises(ConfigError, match=rf"{option} was given"):
        open_items(make(tmp_path, ["dog.png"]), "image", **{option: "a"})

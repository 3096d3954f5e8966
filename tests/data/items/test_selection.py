"""Walks of folders: one order everywhere, patterns as in a shell, no loops."""

import os
import random

import pytest

from cmcr.data.items.selection import everything_below, selection_of_pattern
from cmcr.errors import ReadError

NAMES = ["a.jpg", "a/z.jpg", "a b.jpg", "a-/b.jpg", "B.jpg", "ab.jpg", "a/b/c.jpg", "é.jpg", "u\u0308.jpg", "z/中.jpg"]


def make(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(selection):
    return [relative for relative, _ in selection]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_is_that_of_the_relative_paths_whatever_came_first(tmp_path, seed):
    make(tmp_path, random.Random(seed).sample(NAMES, len(NAMES)))
    selection = everything_below(tmp_path)
    assert found(selection) == sorted(NAMES)
    assert found(selection) == sorted(NAMES)
    assert all(path == tmp_path / relative for relative, path in selection)


def test_hidden_files_and_loops_are_passed_over(tmp_path):
    make(tmp_path, ["a/b.jpg", ".hidden/c.jpg", ".d.jpg", "elsewhere/e.jpg"])
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nothing")
    assert found(everything_below(tmp_path)) == ["a/b.jpg", "a/other/e.jpg", "broken.jpg", "elsewhere/e.jpg"]


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
        (".h*", [".h.jpg"]),
        ("*", ["a.jpg", "b.jpg", "c.PNG"]),
        ("*.png", []),
    ],
)
def test_patterns(tmp_path, pattern, expected):
    make(tmp_path, ["a.jpg", "b.jpg", "c.PNG", "x/a.jpg", "x/y/a.jpg", ".h.jpg", ".h/a.jpg"])
    assert found(selection_of_pattern(tmp_path / pattern)) == expected


def test_a_path_without_a_pattern_is_none(tmp_path):
    assert selection_of_pattern(tmp_path / "a.jpg") is None


def test_a_walk_reads_one_folder_at_a_time(tmp_path, monkeypatch):
    make(tmp_path, [f"{folder}/{file}.jpg" for folder in "abcdef" for file in "xy"])
    scanned, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(path) or scandir(path))
    walk = iter(everything_below(tmp_path))
    assert next(walk)[0] == "a/x.jpg"
    assert scanned == [tmp_path, tmp_path / "a"]


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)  # a superuser may read everything
    with pytest.raises(ReadError, match=r"could not read \(Permission denied\).*" + tmp_path.name):
        list(everything_below(tmp_path))

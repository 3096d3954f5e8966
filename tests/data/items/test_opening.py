"""From what was given to a list, and what cannot be one."""

import os

import pytest

from cmcr.data.items import Item, open_items
from cmcr.errors import ConfigError


def test_one_file_is_a_list_of_one(tmp_path):
    (tmp_path / "dog.FLAC").write_bytes(b"x")
    assert list(open_items(tmp_path / "dog.FLAC", "audio")) == [Item("dog.FLAC", "dog.FLAC", tmp_path / "dog.FLAC")]


def test_a_name_with_brackets_that_is_there_is_no_pattern(tmp_path):
    folder = tmp_path / "photos[1]"
    folder.mkdir()
    (folder / "a[*].png").write_bytes(b"x")
    assert [item.id for item in open_items(folder, "image")] == ["a[*].png"]
    assert [item.id for item in open_items(folder / "a[*].png", "image")] == ["a[*].png"]


def test_relative_paths_give_the_same_list(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    absolute = open_items(tmp_path / "photos", "image").survey()
    monkeypatch.chdir(tmp_path)
    for given in ("photos", "./photos/", "photos/*.png", "photos/../photos"):
        assert open_items(given, "image").survey() == absolute
    monkeypatch.chdir(tmp_path / "photos")
    assert open_items(".", "image").survey() == open_items("*", "image").survey() == absolute


@pytest.mark.parametrize(
    ("given", "modality", "message"),
    [
        ("photos", "picture", r"unknown modality 'picture'\."),
        ("", "image", "an empty path"),
        ("photo", "image", r"^photo: no such file or folder; this folder holds no 'photo'\. Did you mean photos\?$"),
        ("photos/dgo.png", "image", r"photos holds no 'dgo\.png'\. Did you mean photos/dog\.png\?"),
        ("nowhere/at/all.png", "image", r"this folder holds no 'nowhere'\. Check the path\."),
        ("a\0b", "image", "no such file or folder|not a path"),
        ("x" * 5000, "image", r"not a path \(.*too long"),
        ("photos/*.gif", "image", r"photos/\*\.gif: the pattern matches no files in photos\. Capitals count"),
        ("phots/*.png", "image", r"phots: no such file or folder; .* Did you mean photos\?"),
        ("photos/dog.png", "audio", r"expected a list \(\.txt, \.csv.*\), a tar file, or audio files .*, got \.png\."),
        ("pipe", "image", "neither a file nor a folder"),
    ],
)
def test_wrong_inputs(tmp_path, monkeypatch, given, modality, message):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dog.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        open_items(given, modality)


@pytest.mark.parametrize("option", ["column", "id_column"])
def test_columns_of_what_has_none(tmp_path, option):
    (tmp_path / "dog.png").write_bytes(b"x")
    with pytest.raises(ConfigError, match=rf"{option} was given, but only tables \(\.csv, "):
        open_items(tmp_path, "image", **{option: "a"})

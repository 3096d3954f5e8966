"""Files as items."""

import hashlib

import numpy as np
import pytest

from cmcr.data.items import Item, open_items
from cmcr.errors import ConfigError, ReadError, SampleError


def test_a_folder_gives_its_files(tmp_path):
    for name in ("b.JPG", "sub/a.png", "notes.md", "sub/list.json", "x.json", "Makefile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    items = open_items(tmp_path, "image")
    assert items.description == f"folder {tmp_path.name} (image files)"
    assert dict(items.ignored) == {}
    expected = [Item("b.JPG", "b.JPG", tmp_path / "b.JPG"), Item("sub/a.png", "sub/a.png", tmp_path / "sub/a.png")]
    assert list(items) == list(items) == expected
    assert dict(items.ignored) == {".json": 2, ".md": 1, "no ending": 1}


def test_the_digest_is_of_names(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"12345")
    part = (5).to_bytes(8, "big") + b"a.wav" + (0).to_bytes(8, "big")
    survey = open_items(tmp_path, "audio").survey()
    assert (survey.count, survey.digest) == (1, hashlib.sha256(part).hexdigest())
    assert open_items(str(tmp_path / "a.wav"), "audio").survey() == survey
    (tmp_path / "a.wav").write_bytes(b"123456")  # mended while a run is stopped
    assert open_items(tmp_path, "audio").survey() == survey
    (tmp_path / "b.wav").write_bytes(b"12345")
    assert open_items(tmp_path, "audio").survey().digest != survey.digest


def test_files_of_text_are_one_text_each(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbftwo\nlines\r\n")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    (tmp_path / "c.txt").write_bytes(b"")
    (tmp_path / "d.txt").symlink_to(tmp_path / "nothing")
    a, b, c, d = open_items(tmp_path, "text")
    assert (a.content, c.content) == ("two\nlines", "")
    assert str(b.content) == "b.txt: not UTF-8: byte 3 is 0xE9. Save it as UTF-8."
    assert isinstance(d.content, SampleError)


def test_unicode_names_stay_as_they_are(tmp_path):
    composed, decomposed = (
        "\u00e9.npy",
        "u\u0308.npy",
    )  # of two letters: some file systems take the forms of one for one
    for name in (composed, decomposed):
        np.save(tmp_path / name, np.zeros((16, 3)))
    assert [item.id for item in open_items(tmp_path, "point_cloud")] == [decomposed, composed]


def test_names_that_are_not_utf8_are_escaped_and_readable(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x")
    items = open_items(tmp_path, "image")
    monkeypatch.setattr(
        items, "_selection", [("caf\udce9.png", tmp_path / "a.png")]
    )  # not every system lets one be made
    (item,) = items
    assert (item.id, item.source, item.content.read_bytes()) == ("caf\\udce9.png", "caf\\udce9.png", b"x")
    assert items.survey().count == 1


def test_a_pattern_takes_every_ending(tmp_path):
    for name in ("a.weird", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert [item.id for item in open_items(tmp_path / "*.*", "image")] == ["a.weird", "b.jpg"]


def test_text_files_of_a_pattern_are_clouds_for_point_clouds(tmp_path):
    (tmp_path / "a.txt").write_text("0 0 0\n")
    assert [item.content for item in open_items(tmp_path / "*.txt", "point_cloud")] == [tmp_path / "a.txt"]


def test_folders_without_files_that_fit(tmp_path):
    with pytest.raises(ConfigError, match=r"expected files ending in \.wav.*got no files that are not hidden"):
        open_items(tmp_path, "audio")
    for name in ("a.jpg", "b.jpg", "c.csv"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        ConfigError, match=rf"got \.jpg \(2\), \.csv \(1\)\. .*give the pattern '{tmp_path.name}/\*\.csv'"
    ):
        open_items(tmp_path, "audio")


def test_a_folder_that_vanishes_is_no_empty_run(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"x")
    items = open_items(folder, "image")
    (folder / "a.png").unlink()
    with pytest.raises(ConfigError, match="got no files"):
        list(items)
    folder.rmdir()
    with pytest.raises(ReadError, match=r"could not read.*photos"):
        items.survey()

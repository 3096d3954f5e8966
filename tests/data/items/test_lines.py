"""Text files as lists."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmcr.data.items import Item, open_items
from cmcr.data.texts import read_lines
from cmcr.errors import ConfigError, ReadError

LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))


@given(st.lists(LINE, min_size=1), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_any_unicode_comes_back(tmp_path_factory, lines, end, mark):
    path = tmp_path_factory.mktemp("lists") / "a.txt"
    path.write_bytes("".join(line + end for line in lines).encode("utf-8-sig" if mark else "utf-8"))
    items = open_items(path, "text")
    read = [item.content for item in items]
    if not lines[0].startswith("\ufeff"):
        assert read == lines
    assert read == read_lines(path)
    assert [item.id for item in items] == [f"a.txt:{number}" for number in range(1, len(lines) + 1)]
    assert items.survey().count == len(lines)


def test_a_line_that_is_not_utf8_spoils_itself_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ncaf\xe9\n\nfour")
    one, two, three, four = open_items(path, "text")
    assert (one.content, three.content) == ("one", "")
    assert four == Item("a.txt:4", "a.txt:4", "four")
    assert str(two.content) == "a.txt:2: not UTF-8: byte 0xE9 after 3 characters. Save it as UTF-8."
    before = open_items(path, "text").survey()
    path.write_bytes(b"one\ncaf\xe8\n\nfour")
    assert open_items(path, "text").survey().digest != before.digest


def test_lines_of_other_modalities_are_paths_beside_the_list(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("sub/a.png\n\n/elsewhere/b.png\nhttp://host/c.png\n")
    a, blank, b, c = open_items(path, "image")
    assert a == Item("list.txt:1", "list.txt:1", tmp_path / "sub/a.png")
    assert (b.content, c.content) == (Path("/elsewhere/b.png"), "http://host/c.png")
    assert str(blank.content) == "list.txt:2: blank; expected a path. Fill it or leave the row out."


def test_the_first_line_comes_before_the_file_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"line {number}\n" for number in range(200_000)))
    positions, opened = [], Path.open

    def watched(self, *arguments, **options):
        positions.append(opened(self, *arguments, **options))
        return positions[-1]

    monkeypatch.setattr(Path, "open", watched)
    walk = iter(open_items(path, "text"))
    assert next(walk).content == "line 0"
    assert positions[-1].buffer.raw.tell() < 1 << 20 < path.stat().st_size
    walk.close()
    assert positions[-1].closed


def test_lists_that_cannot_be_used(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"file a\.txt \(text items\): empty; expected a line or row"):
        open_items(path, "text")
    path.write_bytes("a".encode("utf-16"))
    with pytest.raises(ConfigError, match="written in UTF-16; only UTF-8 is read"):
        open_items(path, "text")
    path.write_bytes(b"a\n")
    with pytest.raises(ConfigError, match="a file of lines has no columns, but column and id_column was given"):
        open_items(path, "text", column="a", id_column="b")
    items = open_items(path, "text")
    path.unlink()
    with pytest.raises(ReadError, match="could not read"):
        list(items)

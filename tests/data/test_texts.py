"""Texts: any unicode passes unchanged, what cannot be encoded is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmcr.data.texts import read_lines, read_text
from cmcr.errors import SampleError

# No surrogates, no NUL, no control characters that end lines.
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)


@given(WORDS)
def test_any_unicode_passes_unchanged(text):
    assert read_text(text) == text


def test_nothing_is_normalised():
    for text in (" two  spaces ", "e\u0301", "\u00e9", "👩‍👩‍👧", "مرحبا", "ﬁ", "\u202eabc"):
        assert read_text(text) == text


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("", "empty"),
        (" \t\n\u3000", "white space only"),
        ("ab\ud83d", r"U\+D83D\) at character 2"),
        ("a\0b", "a NUL at character 1"),
        (b"abc", "Decode it first"),
        (Path("a.txt"), "expected a string, got PosixPath|WindowsPath"),
        (None, "got NoneType"),
    ],
)
def test_unusable_texts(item, message):
    with pytest.raises(SampleError, match=message):
        read_text(item)


@given(st.lists(WORDS | st.just("")), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_read_lines_gives_all_lines_blank_ones_too(tmp_path_factory, lines, end, mark):
    path = tmp_path_factory.mktemp("texts") / "a.txt"
    path.write_bytes("".join(line + end for line in lines).encode("utf-8-sig" if mark else "utf-8"))
    assert read_lines(path) == lines
    path.write_bytes("\n".join([*lines, "\u2028last"]).encode())
    assert read_lines(path) == [*lines, "\u2028last"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb".encode("utf-16"), "UTF-16"),
        (b"one\ncaf\xe9\n", "line 2 holds the byte 0xE9"),
        (b"\xef\xbb\xbfone\ncaf\xe9\n", "line 2 holds the byte 0xE9"),
        (b"cut \xf0\x9f", "line 1 holds the byte 0xF0"),
    ],
)
def test_other_encodings_are_refused(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(SampleError, match=message):
        read_lines(tmp_path / "a.txt")
    with pytest.raises(SampleError, match="no such text file"):
        read_lines(tmp_path / "b.txt")

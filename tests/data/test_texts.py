"""Texts: any unicode passes unchanged, what cannot be encoded is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmcr.data.texts import read_lines, read_text, read_text_file
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
        ("", "a text: empty; there is nothing to embed"),
        (" \t\n\u3000", "a text: white space only"),
        ("ab\ud83d", r"a lone surrogate \(U\+D83D\) at character 2"),
        ("a\0b", "a NUL at character 1"),
        (b"abc", r"got bytes\. Decode it first: item\.decode\('utf-8'\)"),
        (Path("a.txt"), r"A path is not a text; read_text_file"),
        (3, "expected a string, got int"),
        (None, "got NoneType"),
    ],
)
def test_unusable_texts(item, message):
    with pytest.raises(SampleError, match=message):
        read_text(item)


@given(st.lists(WORDS), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.booleans())
def test_files_give_their_lines(tmp_path_factory, lines, end, mark, ended):
    path = tmp_path_factory.mktemp("texts") / "a.txt"
    content = end.join(lines) + (end if ended and lines else "")
    path.write_bytes(content.encode("utf-8-sig" if mark else "utf-8"))
    assert read_text_file(path) == lines


def test_blank_lines_are_lines_and_no_texts(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("a\n\n\u2028b\n".encode())
    assert read_lines(path) == ["a", "", "\u2028b"]
    with pytest.raises(SampleError, match=r"a\.txt line 2: empty"):
        read_text_file(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb".encode("utf-16"), "written in UTF-16; only UTF-8 is read"),
        (b"one\ncaf\xe9\n", r"not UTF-8: byte 7 \(line 2\) is 0xE9"),
        (b"\xef\xbb\xbfone\ncaf\xe9\n", r"not UTF-8: byte 10 \(line 2\) is 0xE9"),
        (b"cut \xf0\x9f", r"byte 4 \(line 1\) is 0xF0"),
    ],
)
def test_other_encodings_are_refused(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(SampleError, match=message):
        read_lines(tmp_path / "a.txt")
    with pytest.raises(SampleError, match="no such text file"):
        read_lines(tmp_path / "b.txt")

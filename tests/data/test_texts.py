"""Texts: any unicode passes unchanged; what cannot be encoded is refused, with the reason."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmcr.data.texts import read_lines, read_text
from cmcr.errors import SampleError

# No surrogates, no NUL, no control characters that end lines.
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip)
NOT_NORMALISED = st.sampled_from((" two  spaces ", "e\u0301", "\u00e9", "👩‍👩‍👧", "مرحبا", "ﬁ", "\u202eabc"))


@given(WORDS | NOT_NORMALISED)
def test_any_unicode_passes_unchanged(text):
    assert read_text(text) == text


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (b"abc", "got bytes"),
        (Path("a.txt"), "got PosixPath|WindowsPath"),
        ("ab\ud83d", "lone surrogate at character 2"),
        ("a" * 100_001, "100,001 characters"),
    ],
)
def test_unusable_texts(item, message):
    with pytest.raises(SampleError, match=message):
        read_text(item)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ncaf\xe9\n", "line 2 .* 0xE9"),
        (b"cut \xf0\x9f", "line 1 .* 0xF0"),
    ],
)
def test_other_encodings_are_refused(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(SampleError, match=message):
        read_lines(tmp_path / "a.txt")

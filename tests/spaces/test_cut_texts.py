"""One warning a call tells of texts that were cut, the same whatever order threads come in."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from cmcr.spaces.cut_texts import CutTexts


def test_nothing_is_said_where_nothing_was_cut():
    CutTexts("mine", 77).say()  # a warning would be an error


@pytest.mark.parametrize("turned", [False, True])
def test_one_warning_names_how_many_and_one_of_them(turned):
    texts = [f"{letter} long text that goes on and on and on" for letter in "bac"]
    cut = CutTexts("mine", 77)
    for text in texts[::-1] if turned else texts:
        cut.add(text)
    with pytest.warns(UserWarning, match="mine: ") as said:
        cut.say()
    assert [str(warning.message) for warning in said] == [
        "mine: 3 text(s) are longer than the 77 tokens that this encoder reads; the rest of each was not embedded. One "
        f"begins with {texts[1][:40]!r}."
    ]


def test_threads_count_together():
    cut = CutTexts("mine", 5)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(cut.add, map(str, range(5_000))))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cut.say()
    assert str(said[0].message).startswith("mine: 5000 text(s)")

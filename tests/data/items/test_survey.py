"""Surveys: repeated ids are proved, not guessed from hashes."""

import pytest

from cmcr.data.items import survey as survey_module
from cmcr.data.items.item import Entry
from cmcr.data.items.survey import survey_of
from cmcr.errors import ConfigError


def walk_of(*ids):
    return lambda: (Entry(name, f"t.csv:{row}", b"", lambda: "") for row, name in enumerate(ids, start=1))


def test_an_id_that_occurs_twice_is_named():
    with pytest.raises(ConfigError, match=r"table: the id 'b' occurs twice, at t\.csv:2 and at t\.csv:4"):
        survey_of(walk_of("a", "b", "c", "b"), "table")


def test_one_hash_for_two_ids_is_no_fault(monkeypatch):
    monkeypatch.setattr(survey_module, "_hash_of", lambda identity: 7)
    assert survey_of(walk_of("a", "b", "c"), "table").count == 3
    with pytest.raises(ConfigError, match="the id 'c' occurs twice"):
        survey_of(walk_of("a", "c", "c"), "table")


def test_the_digest_tells_where_one_part_ends():
    def one(name, mark):
        return lambda: iter([Entry(name, name, mark, lambda: "")])

    assert survey_of(one("ab", b"c"), "") != survey_of(one("a", b"bc"), "")
    assert survey_of(walk_of("a", "b"), "").digest != survey_of(walk_of("b", "a"), "").digest

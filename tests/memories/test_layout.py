"""Records of a memory to the bytes of its files and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored import ORIGIN, origin

from cmcr.errors import FormatError
from cmcr.memories.layout import (
    Contents,
    Quarantined,
    Run,
    Shard,
    contents_of,
    item_lines,
    items_of_lines,
    manifest_of,
    next_generation,
    parsed_lines,
    quarantine_lines,
    shard_name,
)

ANY_TEXT = st.text(st.characters(codec=None) | st.sampled_from('\udc80\ud800\u2028\n\r"\\\0'))
SHARDS = (
    Shard("shard-00000", 0, 0, 0, 0, 4, {}, {}),
    Shard("shard-00001", 3, 5, 0, 4, 4, {"shard-00001.safetensors": "ab"}, {"shard-00001.safetensors": 9}),
    Shard("shard-00002", 2, 5, 1, 0, 2, {}, {}),
)
CONTENTS = Contents(ORIGIN, (Run(8, "d", 4, {"numpy": "2"}), Run(2, "e", 4, {})), SHARDS, "cmcr 1")


def test_sums_over_the_shards():
    assert (CONTENTS.rows, CONTENTS.quarantined, CONTENTS.width) == (5, 5, 5)
    assert (Contents(ORIGIN).rows, Contents(ORIGIN).width) == (0, 0)
    assert SHARDS[0].quarantined == 4


def test_the_manifest_comes_back():
    manifest = json.loads(json.dumps(manifest_of(CONTENTS)))
    assert contents_of(manifest, "here") == CONTENTS
    assert {key: manifest[key] for key in ("format", "version", "space", "modality", "width", "rows", "quarantined")} == {
        "format": "cmcr memory", "version": 1, "space": "mine", "modality": "text", "width": 5, "rows": 5,
        "quarantined": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 6}, "its shards do not add up to its rows"),
        ({"width": 4}, "its shards do not add up to its rows"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"shards": []}, "its shards do not add up"),
        ({"shards": [1]}, "not a usable cmcr memory"),
        ({"shards": None}, "not a usable cmcr memory"),
        ({"runs": {"a": 1}}, "not a usable cmcr memory"),
        ({"space": None}, "'space'"),
    ],
)
def test_manifests_that_do_not_hold_together(change, message):
    manifest = {**json.loads(json.dumps(manifest_of(CONTENTS))), **change}
    if change == {"space": None}:
        del manifest["space"]
    with pytest.raises(FormatError, match=r"^here: not a usable cmcr memory \(.*\)\.$") as caught:
        contents_of(manifest, "here")
    assert message in str(caught.value)


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), max_size=5))
def test_ids_and_sources_come_back_whatever_they_hold(pairs):
    lines = item_lines(pairs)
    assert lines.count(b"\n") == len(pairs)
    assert items_of_lines(lines) == pairs
    assert [json.loads(line) for line in lines.decode().split("\n")[:-1]] == parsed_lines(lines)


@given(st.lists(ANY_TEXT, max_size=5))
def test_a_source_that_is_the_id_is_left_out(ids):
    lines = item_lines([(id_, id_) for id_ in ids])
    assert parsed_lines(lines) == [{"id": id_} for id_ in ids]
    assert items_of_lines(lines) == [(id_, id_) for id_ in ids]
    assert item_lines([("a", "a"), ("b", "c")]) == b'{"id": "a"}\n{"id": "b", "source": "c"}\n'


def test_unicode_is_kept_readable():
    assert item_lines([("日本.png", "a/日本.png")]).decode() == '{"id": "日本.png", "source": "a/日本.png"}\n'


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT, st.integers(0, 9), ANY_TEXT), max_size=4))
def test_quarantine_comes_back_whatever_it_holds(fields):
    items = [Quarantined(*given) for given in fields]
    assert [Quarantined(**line) for line in parsed_lines(quarantine_lines(items))] == items


def test_names_of_shards():
    assert [shard_name(0), shard_name(7, 2), shard_name(123456)] == ["shard-00000", "shard-00007.2", "shard-123456"]
    assert [next_generation(name) for name in ("shard-00003", "shard-00003.1", "shard-123456.9")] == [
        "shard-00003.1", "shard-00003.2", "shard-123456.10",
    ]  # fmt: skip


def test_an_origin_is_compared_by_all_it_says():
    for field in ORIGIN.__dict__:
        assert origin(**{field: "else"}) != ORIGIN

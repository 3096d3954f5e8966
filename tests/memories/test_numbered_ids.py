"""Numbered ids: the same strings, digests, lines and memories as if they were given."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import cmcr
from cmcr.memories.array_rows import ArrayRows
from cmcr.memories.item_pairs import ItemPairs
from cmcr.memories.layout import item_lines, parsed_lines
from cmcr.memories.listed_items import ListedItems
from cmcr.memories.numbered_ids import NumberedIds
from cmcr.memories.row_source import survey_rows
from cmcr.memories.row_writing import write_rows

PREFIXES = st.sampled_from(["", "rows.npy:", "日本:", 'a"b\\', "\udcff", "\x7f"])
STARTS = st.integers(0, 120) | st.integers(2**32 - 150, 2**32 + 50) | st.integers(10**17 - 50, 10**17)


def strings(start, stop, prefix):
    return [f"{prefix}{number}" for number in range(start, stop)]


@given(STARTS, st.integers(0, 120), PREFIXES)
@example(0, 0, "x")
def test_they_are_the_strings(start, count, prefix):
    ids, expected = NumberedIds(start, start + count, prefix), strings(start, start + count, prefix)
    assert list(ids) == expected
    assert len(ids) == count
    assert ids.joined() == "".join(expected).encode("utf-8", "surrogatepass")
    assert ids.lengths().tolist() == [len(one) for one in expected]
    assert list(ids[3:9]) == expected[3:9]
    assert list(ids[-5:]) == expected[-5:]
    assert ids[::-2] == expected[::-2]
    if count:
        assert (ids[0], ids[-1]) == (expected[0], expected[-1])
    with pytest.raises(IndexError):
        ids[count]


@given(STARTS, st.integers(0, 120), PREFIXES)
def test_their_lines_are_those_of_the_strings(start, count, prefix):
    ids, expected = NumberedIds(start, start + count, prefix), strings(start, start + count, prefix)
    pairs = ItemPairs(ids, ids)
    assert item_lines(pairs) == item_lines(list(zip(expected, expected, strict=True)))
    assert list(pairs) == list(zip(expected, expected, strict=True))
    sources = [f"list:{place}" for place in range(count)]
    assert item_lines(ItemPairs(ids, sources)) == item_lines(list(zip(expected, sources, strict=True)))


def test_lines_of_one_list_are_those_of_pairs():
    for ids in ([], ["a", "日本"], ['a"b', "c"], ["\udcff"]):
        assert item_lines(ItemPairs(ids, ids)) == item_lines([(one, one) for one in ids])


@pytest.mark.parametrize("prefix", ["", "rows.npy:", "日"])
@pytest.mark.parametrize("count", [1, 10, 11, 1234, 70_001])  # ids come some 65,536 at a time
def test_their_survey_is_that_of_the_strings(count, prefix):
    rows = np.ones((count, 1), dtype=np.float32)
    tensor = cmcr.arrays.rows_of(rows, "rows")
    numbered = ArrayRows("rows", tensor, ListedItems(count, prefix=prefix))
    listed = ArrayRows("rows", tensor, ListedItems(count, strings(0, count, prefix)))
    assert (numbered.numbered, listed.numbered) == (True, False)
    assert survey_rows(numbered) == survey_rows(listed)


@pytest.mark.parametrize("prefix", ["", 'x"\n', "日:"])
@pytest.mark.parametrize("bad", [(), (0, 7, 105)])
@pytest.mark.parametrize("sources", [None, [f"s{row}" for row in range(111)]])
def test_their_memory_is_that_of_the_strings(tmp_path, rng, prefix, bad, sources):
    rows = rng.normal(size=(111, 3)).astype(np.float32)
    rows[list(bad)] = np.nan
    tensor = cmcr.arrays.rows_of(rows, "rows")
    made = cmcr.memories.layout.Origin("clip", "image", None, None, None, "float16")
    prepare = cmcr.memories.precomputed._preparation("rows", "float16", True)
    for name, ids in (("numbered", None), ("listed", strings(0, 111, prefix))):
        source = ArrayRows("rows", tensor, ListedItems(111, ids, sources, prefix=prefix))
        write_rows(tmp_path / name, source, made, shard_items=40, prepare=prepare)
    files = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name).iterdir()}
        for name in ("numbered", "listed")
    ]
    assert files[0] == files[1]
    assert cmcr.Memory(tmp_path / "numbered").ids[-1] == f"{prefix}110"


@pytest.mark.parametrize("size", [7, 40, 64])
def test_blocks_that_are_cut_and_joined_keep_their_numbers(tmp_path, rng, size):
    rows = rng.normal(size=(111, 3)).astype(np.float32)
    blocks = [rows[start : start + size] for start in range(0, 111, size)]
    cmcr.write_memory(tmp_path / "m", blocks, space="clip", modality="image", shard_items=40)
    lines = b"".join((tmp_path / "m" / f"shard-0000{n}.items.jsonl").read_bytes() for n in range(3))
    assert parsed_lines(lines) == [{"id": str(row)} for row in range(111)]
    assert json.loads((tmp_path / "m" / "config.json").read_text())["rows"] == 111

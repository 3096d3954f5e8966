"""Records of a memory to bytes and back; one shard on disk: its files, its receipt, its rows; lists of items surveyed."""

import hashlib

import numpy as np
import pytest
import torch
from helpers import ORIGIN, bad_item, unit
from hypothesis import given
from hypothesis import strategies as st

from cmcr.errors import ConfigError, FormatError, IntegrityError
from cmcr.files import write_manifest
from cmcr.memories.layout import (
    DTYPES,
    Contents,
    Quarantined,
    Run,
    Shard,
    contents_in,
    item_lines,
    items_in,
    manifest_of,
    parsed_lines,
    quarantine_lines,
    shard_name,
)
from cmcr.memories.shards import as_float32, finished_shard, mapped_rows, write_shard
from cmcr.memories.survey import survey

ANY_TEXT = st.text(st.characters(codec=None) | st.sampled_from('\udc80\ud800\u2028\n\r"\\\0'))
AWKWARD = torch.tensor([[0.1, -1 / 3, 1e-8, 6e-5, 1.0, -0.0, 0.99999, 2**-24]])


def shard(number, rows, width, run, first_item, items):
    name = shard_name(number)
    files = [
        name + ending for ending in (".safetensors", ".items.jsonl", ".quarantine.jsonl")[: 3 if items > rows else 2]
    ]
    facts = {"sha256": dict.fromkeys(files, "a" * 64), "bytes": dict.fromkeys(files, 100)}
    return Shard(name=name, rows=rows, width=width, run=run, first_item=first_item, items=items, **facts)


CONTENTS = Contents(
    origin=ORIGIN,
    runs=(
        Run(items=8, digest="d" * 64, shard_items=4, versions={"numpy": "2"}),
        Run(items=2, digest="e" * 64, shard_items=4, versions={}, settings={"temperature": 0.01}),
    ),
    shards=(shard(0, 0, 0, 0, 0, 4), shard(1, 3, 5, 0, 4, 4), shard(2, 2, 5, 1, 0, 2)),
)


def test_a_manifest_comes_back(tmp_path):
    write_manifest(tmp_path, manifest := manifest_of(CONTENTS))
    assert contents_in(tmp_path) == CONTENTS
    assert (manifest["format"], manifest["version"], manifest["space"]) == ("cmcr memory", 1, "mine")
    assert (manifest["rows"], manifest["quarantined"], manifest["width"]) == (5, 5, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 6}, "add up"),
        ({"width": 4}, "add up"),
        ({"shards": []}, "add up"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_a_manifest_that_does_not_hold_together(tmp_path, change, message):
    write_manifest(tmp_path, {**manifest_of(CONTENTS), **change})
    with pytest.raises(FormatError, match=f"^{tmp_path}: .*{message}"):
        contents_in(tmp_path)


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT, st.integers(0, 9), ANY_TEXT), max_size=4))
def test_lines_come_back_whatever_they_hold(fields):
    pairs = [(id_, source) for id_, source, _, _ in fields]
    lines = item_lines(pairs)
    assert lines.count(b"\n") == len(pairs)
    assert [(line["id"], line.get("source", line["id"])) for line in parsed_lines(lines)] == pairs
    items = [Quarantined(id=a, source=b, position=c, reason=d) for a, b, c, d in fields]
    assert [Quarantined(**line) for line in parsed_lines(quarantine_lines(items))] == items


def test_lines_of_items_leave_out_a_source_that_is_the_id_and_stay_readable():
    assert item_lines([("日本", "日本"), ("b", "c")]).decode() == '{"id": "日本"}\n{"id": "b", "source": "c"}\n'


def written(folder, rows, quarantined=()):
    (folder / ".run").mkdir()
    items = [(f"i{n}", f"s:{n}") for n in range(len(rows))]
    return write_shard(folder, "shard-00002", rows, items, quarantined, run=1, first_item=8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_mapped_rows_are_those_written(tmp_path, dtype):
    rows = torch.cat([AWKWARD, torch.from_numpy(unit(40, width=8))]).to(DTYPES[dtype])
    made = written(tmp_path, rows.T.contiguous().T)  # laid out by columns
    mapped = mapped_rows(tmp_path, made, dtype)
    assert torch.equal(mapped, rows)
    np.testing.assert_array_equal(as_float32(mapped), rows.float().numpy())
    other = "float16" if dtype == "float32" else "float32"
    with pytest.raises(IntegrityError, match=other):
        mapped_rows(tmp_path, made, other)


def test_a_receipt_names_what_is_there(tmp_path):
    made = written(tmp_path, torch.ones(3, 2), [bad_item("x", 11)])
    assert (made.rows, made.width, made.run, made.first_item, made.items, made.quarantined) == (3, 2, 1, 8, 4, 1)
    names = {"shard-00002.safetensors", "shard-00002.items.jsonl", "shard-00002.quarantine.jsonl"}
    assert set(made.sha256) == set(made.bytes) == names == {path.name for path in tmp_path.glob("shard*")}
    for name in names:
        content = (tmp_path / name).read_bytes()
        assert (made.sha256[name], made.bytes[name]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert finished_shard(tmp_path, "shard-00002") == made
    assert items_in(tmp_path, made) == [("i0", "s:0"), ("i1", "s:1"), ("i2", "s:2")]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (".run/shard-00002.json", None),
        (".run/shard-00002.json", b"{"),
        ("shard-00002.safetensors", None),
        ("shard-00002.items.jsonl", b""),
    ],
)
def test_a_finished_shard_needs_a_receipt_and_whole_files(tmp_path, file, content):
    written(tmp_path, torch.ones(3, 2))
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    assert finished_shard(tmp_path, "shard-00002") is None


def surveyed(*ids, marks=(b"",) * 4):
    return survey(lambda: zip(ids, marks, strict=False), 2, "a list")


def test_survey_counts_and_hashes_by_shard():
    found = surveyed("a", "b", "c")
    assert (found.count, len(found.digests)) == (3, 2)
    others = [surveyed("b", "a", "c"), surveyed("ab", "c"), surveyed("a", "b", "c", marks=[b"", b"x", b""])]
    assert len({one.digest for one in (found, *others)}) == 4
    assert surveyed("a", "b", "d").digests[0] == found.digests[0] != surveyed("a", "d").digests[0]


def test_survey_refuses_ids_that_occur_twice_but_not_those_of_one_hash():
    with pytest.raises(ConfigError, match="'b' occurs twice, for items 1 and 3"):
        surveyed("a", "b", "c", "b")

    class Alike(str):
        def __hash__(self):
            return 7

        __eq__ = str.__eq__

    assert surveyed(Alike("a"), Alike("b")).count == 2

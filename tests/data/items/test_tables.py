"""CSV, TSV, JSONL and Parquet files as lists."""

import csv
import json
import sys

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from cmcr.data.items import Item, open_items
from cmcr.data.paths import NamedBytes
from cmcr.errors import ConfigError, MissingDependencyError, ReadError

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def contents(items):
    return [item.content if isinstance(item.content, str) else str(item.content) for item in items]


@given(st.lists(CELL, min_size=1), st.sampled_from([",", "\t"]))
def test_any_unicode_comes_back(tmp_path_factory, cells, separator):
    path = tmp_path_factory.mktemp("tables") / ("a.csv" if separator == "," else "a.tsv")
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter=separator)
        rows.writerows([["n", "text"], *enumerate(cells)])
    items = open_items(path, "text", id_column="n")
    assert contents(items) == cells
    assert [item.id for item in items] == [str(number) for number in range(len(cells))]
    assert [item.source for item in items] == [f"{path.name}:{row}" for row in range(1, len(cells) + 1)]
    for kind, write in (("jsonl", write_jsonl), ("parquet", write_parquet)):
        other = path.with_suffix("." + kind)
        write(other, cells)
        assert contents(open_items(other, "text")) == cells


def write_jsonl(path, cells):
    path.write_text("".join(json.dumps({"text": cell}) + "\n" for cell in cells))


def write_parquet(path, cells):
    parquet.write_table(pa.table({"text": cells}), path)


def test_rows_of_csv_that_cannot_be_read(tmp_path):
    path = written(tmp_path / "a.csv", b'id,text\n1,good\n2,a,b\n\n3,caf\xe9\n,no id\n4,"two\nlines, quoted"\n')
    items = list(open_items(path, "text", id_column="id"))
    assert [item.id for item in items] == ["1", "a.csv:2", "a.csv:3", "a.csv:4", "4"]
    assert contents(items) == [
        "good",
        "a.csv:2: expected 2 cells, got 3. Quote cells that hold the separator.",
        "a.csv:3: column 'text' is not UTF-8: byte 0xE9 after 3 characters. Save the table as UTF-8.",
        "a.csv:4: expected an id in column 'id', got ''. Fill the cell.",
        "two\nlines, quoted",
    ]


def test_long_cells_leave_the_limit_of_csv_as_it_was(tmp_path):
    before = csv.field_size_limit()
    path = written(tmp_path / "a.csv", "text\n" + "x" * 200_000 + "\n")
    walk = iter(open_items(path, "text"))
    assert len(next(walk).content) == 200_000
    assert csv.field_size_limit() == before


def test_a_quote_that_is_never_closed(tmp_path):
    path = written(tmp_path / "a.csv", 'text\ngood\n"bad\nand\nmore\n')
    with pytest.raises(ReadError, match=r"table is damaged or cut short \(line 5: unexpected end of data"):
        open_items(path, "text").survey()


def test_lines_of_jsonl_that_cannot_be_read(tmp_path):
    path = written(tmp_path / "a.jsonl", b'{"text": "a"}\n\n{"text": \n[1]\n{"text": 3}\n{}\n{"text": "caf\xe9"}\n')
    items = list(open_items(path, "text"))
    assert [item.id for item in items] == [f"a.jsonl:{line}" for line in (1, 3, 4, 5, 6, 7)]
    read = contents(items)
    assert read[0] == "a"
    assert read[1].startswith("a.jsonl:3: not JSON (Expecting value")
    assert read[2] == "a.jsonl:4: expected a JSON object, got list. Write one object a line."
    assert read[3] == "a.jsonl:5: expected a text, got int. Fill the cell with a string."
    assert read[4] == "a.jsonl:6: expected a text, got nothing. Fill the cell with a string."
    assert read[5] == "a.jsonl:7: not UTF-8: byte 0xE9 after 13 characters. Save the file as UTF-8."


def test_parquet_holds_paths_bytes_and_both(tmp_path):
    path = tmp_path / "a.parquet"
    both = [{"bytes": b"png", "path": "c.npy"}, {"bytes": None, "path": "d.npy"}, None]
    parquet.write_table(pa.table({"path": ["a.png", None, "b.png"], "raw": [b"1", b"", None], "image": both}), path)
    a, empty, b = open_items(path, "image")
    assert (a, b.content) == (Item("a.parquet:1", "a.parquet:1", tmp_path / "a.png"), tmp_path / "b.png")
    assert str(empty.content) == "a.parquet:2: expected a path, got nothing. Fill the cell or leave the row out."
    assert [item.content for item in open_items(path, "audio", column="raw")][:2] == [b"1", b""]
    assert [item.content for item in open_items(path, "image", column="image")][:2] == [b"png", tmp_path / "d.npy"]
    clouds = list(open_items(path, "point_cloud", column="image"))
    assert clouds[0].content == NamedBytes("c.npy", b"png")
    assert "do not say their format" in str(next(iter(open_items(path, "point_cloud", column="raw"))).content)


def test_parquet_with_damaged_pages(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": [f"caption {number}" for number in range(5000)]}), path, compression="gzip")
    content = bytearray(path.read_bytes())
    content[1000:9000] = bytes(8000)
    path.write_bytes(content)
    with pytest.raises(ReadError, match="the Parquet file is damaged or cut short"):
        open_items(path, "text").survey()


def test_parquet_without_pyarrow_and_damaged(tmp_path, monkeypatch):
    path = written(tmp_path / "a.parquet", b"PAR1 no more")
    with pytest.raises(ReadError, match=r"the Parquet file is damaged or cut short .*fetch or write it again"):
        open_items(path, "text")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"cmcr needs it for Parquet files.*cmcr\[parquet\]"):
        open_items(path, "text")


def test_columns(tmp_path):
    path = written(tmp_path / "a.csv", "caption,image,x,x\nhello,a.png,1,2\n")
    assert contents(open_items(path, "text", column="caption")) == ["hello"]
    assert [item.content for item in open_items(path, "image")] == [tmp_path / "a.png"]
    for options, message in (
        ({}, r"expected a column 'text', got: caption, image, x, x\. Name the column that holds the texts"),
        ({"column": "captoin"}, r"a\.csv: unknown column 'captoin'\. Did you mean 'caption'\?"),
        ({"column": "caption", "id_column": "key"}, "unknown column 'key'"),
        ({"column": "x"}, "two columns are named 'x'"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_items(path, "text", **options)
    with pytest.raises(ConfigError, match="empty; expected a first line that names the columns"):
        open_items(written(tmp_path / "b.csv", ""), "text")
    with pytest.raises(ConfigError, match="empty; expected a line or row for each item"):
        open_items(written(tmp_path / "c.csv", "text\n"), "text")


def test_ids_that_occur_twice(tmp_path):
    path = written(tmp_path / "a.csv", "id,text\n1,a\n2,b\n1,c\n")
    with pytest.raises(
        ConfigError, match=r"the id '1' occurs twice, at a\.csv:1 and at a\.csv:3\. .*another id_column"
    ):
        open_items(path, "text", id_column="id").survey()


def test_the_digest_is_of_ids_and_cells_alone(tmp_path):
    first = open_items(written(tmp_path / "a.csv", "text,n\nx,1\n"), "text").survey()
    assert open_items(written(tmp_path / "a.csv", "n,text\r\n2,x\r\n"), "text").survey() == first
    assert open_items(written(tmp_path / "a.csv", "n,text\n2,y\n"), "text").survey() != first


def test_a_pattern_of_lists_gives_one_after_another(tmp_path):
    (tmp_path / "sub").mkdir()
    written(tmp_path / "b.csv", "text\nthree\n")
    written(tmp_path / "a.txt", "one\ntwo\n")
    written(tmp_path / "sub" / "c.jsonl", '{"text": "four"}\n')
    items = open_items(str(tmp_path / "**" / "*"), "text")
    assert [(item.id, item.content) for item in items] == [
        ("a.txt:1", "one"),
        ("a.txt:2", "two"),
        ("b.csv:1", "three"),
        ("sub/c.jsonl:1", "four"),
    ]

"""Lines, CSV, TSV, JSONL and Parquet files as lists of items."""

import csv
import json
import sys
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from cmcr.data.items import open_items
from cmcr.data.texts import read_lines
from cmcr.errors import ConfigError, MissingDependencyError, ReadError, SampleError

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def ids(items):
    return [entry.id for entry in items.walk()]


def contents(items):
    """The contents in order, those that cannot be read as their messages."""
    read = [entry.read() for entry in items.walk()]
    return [str(one) if isinstance(one, SampleError) else one for one in read]


@given(st.lists(CELL, min_size=1), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_any_unicode_comes_back_from_lines(tmp_path_factory, lines, end, mark):
    path = tmp_path_factory.mktemp("lists") / "a.txt"
    path.write_bytes("".join(line + end for line in lines).encode("utf-8-sig" if mark else "utf-8"))
    items = open_items(path, "text")
    expected = [lines[0].removeprefix("\ufeff"), *lines[1:]] if not mark else lines  # a byte order mark is no text
    assert contents(items) == read_lines(path) == expected
    assert ids(items) == [f"a.txt:{number}" for number in range(1, len(lines) + 1)]


@given(st.lists(CELL, min_size=1), st.sampled_from([",", "\t"]))
def test_any_unicode_comes_back_from_tables(tmp_path_factory, cells, separator):
    path = tmp_path_factory.mktemp("tables") / ("a.csv" if separator == "," else "a.tsv")
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([["n", "text"], *enumerate(cells)])
    items = open_items(path, "text", id_column="n")
    assert contents(items) == cells
    assert ids(items) == [str(number) for number in range(len(cells))]
    assert [entry.source for entry in items.walk()] == [f"{path.name}:{row + 1}" for row in range(len(cells))]
    lines = written(path.with_suffix(".jsonl"), "".join(json.dumps({"text": cell}) + "\n" for cell in cells))
    parquet.write_table(pa.table({"text": cells}), path.with_suffix(".parquet"))
    for other in (lines, path.with_suffix(".parquet")):
        assert contents(open_items(other, "text")) == cells


def test_rows_that_cannot_be_read_spoil_themselves_only(tmp_path):
    table = written(tmp_path / "a.csv", b'id,text\n1,good\n2,a,b\n\n3,caf\xe9\n,no id\n4,"two\nlines, quoted"\n')
    items = open_items(table, "text", id_column="id")
    assert ids(items) == ["1", "a.csv:2", "3", "a.csv:4", "4"]
    reasons = ("good", "a.csv:2: expected 2 cells", "a.csv:3: not UTF-8", "a.csv:4: expected an id", "two\nlines")
    assert all(map(str.startswith, contents(items), reasons))


def test_lines_of_other_modalities_are_paths_beside_the_list(tmp_path):
    path = written(tmp_path / "list.txt", "sub/a.png\n\n/elsewhere/b.png\nhttp://host/c.png\n")
    a, blank, b, c = contents(open_items(path, "image"))
    assert (a, b, c) == (tmp_path / "sub/a.png", Path("/elsewhere/b.png"), "http://host/c.png")
    assert blank.startswith("list.txt:2: blank")


def test_a_long_list_is_read_line_by_line(tmp_path):
    path = written(tmp_path / "a.txt", "".join(f"line {number}\n" for number in range(400_000)))
    tracemalloc.start()
    walk = open_items(path, "text").walk()
    assert next(walk).read() == "line 0"
    walk.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20 < path.stat().st_size


def test_parquet_holds_paths_bytes_and_both(tmp_path):
    path = tmp_path / "a.parquet"
    both = [{"bytes": b"png", "path": "c.npy"}, {"bytes": None, "path": "d.npy"}, None]
    parquet.write_table(pa.table({"path": ["a.png", None, "b.png"], "raw": [b"1", b"", None], "image": both}), path)
    a, empty, b = contents(open_items(path, "image"))
    assert (a, b) == (tmp_path / "a.png", tmp_path / "b.png")
    assert empty.startswith("a.parquet:2: expected a path, got nothing")
    assert contents(open_items(path, "audio", column="raw"))[:2] == [b"1", b""]
    assert contents(open_items(path, "image", column="image"))[:2] == [b"png", tmp_path / "d.npy"]
    assert "expected a path, got bytes" in contents(open_items(path, "point_cloud", column="raw"))[0]


def test_damaged_tables(tmp_path):
    open_quote = written(tmp_path / "a.csv", 'text\ngood\n"bad\nand\nmore\n')
    no_parquet = written(tmp_path / "a.parquet", b"PAR1 no more")
    pages = tmp_path / "b.parquet"
    parquet.write_table(pa.table({"text": [f"caption {number}" for number in range(5000)]}), pages, compression="gzip")
    content = bytearray(pages.read_bytes())
    content[1000:9000] = bytes(8000)
    pages.write_bytes(content)
    for path in (open_quote, no_parquet, pages):
        with pytest.raises(ReadError, match=r"damaged or cut short .*" + path.name):
            ids(open_items(path, "text"))
    gone = written(tmp_path / "c.txt", "a\n")
    items = open_items(gone, "text")
    gone.unlink()
    with pytest.raises(ReadError, match="could not read"):
        contents(items)


def test_parquet_needs_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"cmcr\[parquet\]"):
        open_items(written(tmp_path / "a.parquet", b""), "text")


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.txt", "", {}, "empty"),
        ("a.txt", "a\n", {"column": "a"}, "unknown column 'a'"),
        ("a.csv", "", {}, "first line with the names"),
        ("a.csv", "text\n", {}, "empty"),
        ("a.csv", "words,x,x\nhello,1,2\n", {}, "got: words, x, x"),
        ("a.csv", "caption,x,x\nhello,1,2\n", {"column": "captoin"}, "Did you mean 'caption'"),
        ("a.csv", "caption,x,x\nhello,1,2\n", {"column": "caption", "id_column": "key"}, "unknown column 'key'"),
        ("a.csv", "caption,x,x\nhello,1,2\n", {"column": "x"}, "two columns are named 'x'"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, name, content, options, message):
    with pytest.raises(ConfigError, match=message):
        open_items(written(tmp_path / name, content), "text", **options)


def test_marks_are_the_cells_alone(tmp_path):
    def marks(name, content):
        return [(entry.id, entry.mark) for entry in open_items(written(tmp_path / name, content), "text").walk()]

    assert marks("a.csv", "text,n\nx,1\n") == marks("a.csv", "n,text\r\n2,x\r\n") == [("a.csv:1", b"x")]
    assert marks("a.txt", b"\xe8") != marks("a.txt", b"\xe9")


def test_a_pattern_of_lists_gives_one_after_another(tmp_path):
    (tmp_path / "a").mkdir()
    written(tmp_path / "b.csv", "text\nthree\n")
    written(tmp_path / "a" / "c.csv", "text\none\ntwo\n")
    written(tmp_path / "d.txt", "no table\n")
    items = open_items(str(tmp_path / "**" / "*.csv"), "text")
    assert ids(items) == ["a/c.csv:1", "a/c.csv:2", "b.csv:1"]
    assert contents(items) == ["one", "two", "three"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_all_cells_of_a_row_come_along_if_asked_for(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    rows = [{"": "0", "path": "a.png", "year": 2001}, {"": "1", "path": "b.png", "year": 2002}]
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(",path,year\n0,a.png,2001\n1,b.png,2002\n")
    years = ["2001", "2002"] if kind == "csv" else [2001, 2002]
    for id_column in (None, "path"):
        whole = open_items(path, "image", id_column=id_column, whole_rows=True)
        expected = [{"path": name, "year": year} for name, year in zip(["a.png", "b.png"], years, strict=True)]
        assert [entry.cells for entry in whole.walk()] == expected
        assert ids(whole) == ids(open_items(path, "image", id_column=id_column))
    assert [entry.cells for entry in open_items(path, "image").walk()] == [None, None]

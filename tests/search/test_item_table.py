"""The item table: what goes in comes out, and conditions hold for the rows for which Python says so."""

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmcr.errors import ConfigError, IntegrityError, WriteError
from cmcr.search.items import FIXED, Condition, ItemTable, writing_items

CELLS = [
    {"year": "2001", "code": "007", "note": "a[1]"},
    {"year": "2002.5", "code": "12", "note": ""},
    {"year": "", "code": "12", "note": "night/*"},
    None,
    {"year": "-3", "code": "+4", "note": "A"},
    {"year": "2001", "code": "7", "note": "year 2001"},
]


def fixed(number, live=1, path=None):
    return (number, f"id {number}", "image", "clip", f"s{number}", path, f"f/{number % 2}", None, live)


@pytest.fixture
def table(tmp_path):
    with writing_items(tmp_path / "items.sqlite") as writer:
        writer.write((fixed(number, int(number != 3)), cells) for number, cells in enumerate(CELLS))
    return ItemTable(tmp_path / "items.sqlite", [range(4), range(4, 6)])


def write(file, rows, setting="user_version=1", columns=2000):
    with writing_items(file) as writer:
        writer._connection.execute(f"PRAGMA {setting}")
        writer._connection.setlimit(sqlite3.SQLITE_LIMIT_COLUMN, columns)
        writer.write(rows)


def found(table, *conditions):
    parsed = [Condition.parse(each) for each in conditions]
    return np.flatnonzero(np.concatenate([table.mask(corpus, parsed) for corpus in (0, 1)])).tolist()


@pytest.mark.parametrize(
    ("condition", "numbers"),
    [
        ("year=2001", [0, 5]),
        ("year = 2001.0", [0, 5]),
        ("year!=2001", [1, 2, 4]),
        ("year>=2001", [0, 1, 5]),
        ("year<0", [4]),
        ("year>zero", []),  # numbers are not compared with words
        ("code=007", [0]),  # codes are no numbers
        ("code=7", [5]),
        ("code>=1", [1, 2, 5]),  # of text, as text
        ("code=*7", [0, 5]),
        ("code=?", [5]),
        ("code!=*7", [1, 2, 4]),
        ("note=a[1]*", [0]),
        ("note=", [1]),
        ("folder=f/*", [0, 1, 2, 4, 5]),
        ("folder=f/1", [1, 5]),
        ("number<=1", [0, 1]),
        ("modality=audio", []),
        ("note=night/*", [2]),
        ("note=x' OR 1=1 --", []),
        ("note=\ud800*", []),
        ("year<1" + "0" * 400, []),  # no number
    ],
)
def test_conditions(table, condition, numbers):
    assert found(table, condition) == numbers


def test_all_conditions_hold_and_only_live_items_are_found(table):
    assert found(table) == [0, 1, 2, 4, 5]
    assert found(table, "year=2001", "folder=f/0") == [0]


@given(
    st.lists(
        st.none() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(),
        min_size=1,
    ),
    st.text(),
)
def test_any_cell_is_found_by_its_own_value_and_no_name_of_a_column_harms(tmp_path_factory, cells, name):
    file = tmp_path_factory.mktemp("items") / "items.sqlite"
    with writing_items(file) as writer:
        writer.write((fixed(number), {name + "x": cell}) for number, cell in enumerate(cells))
    table = ItemTable(file, [range(len(cells))])
    column = table.columns[-1]
    assert len(table.columns) == len(FIXED) + any(cell is not None for cell in cells)  # none for nothing
    for item in table.items(range(len(cells))):
        kept, given_ = item.columns.get(column), cells[item.number]
        if isinstance(given_, str) and not isinstance(kept, str):
            assert given_ == "" if kept is None else float(given_) == kept
        elif isinstance(given_, int) and not -(2**63) <= given_ < 2**63:
            assert kept == str(given_)
        else:
            assert kept == given_
        if kept is not None:
            condition = Condition(column, "=", str(kept))
            assert "*" in str(kept) or "?" in str(kept) or table.mask(0, [condition])[item.number]


def test_items_come_in_the_order_they_are_asked_for(tmp_path, table):
    assert [item.id for item in table.items([5, 0, 5])] == ["id 5", "id 0", "id 5"]
    assert table.items([0])[0].columns == {"year": 2001, "code": "007", "note": "a[1]"}
    assert table.items([3])[0].columns == {"year": None, "code": None, "note": None}
    assert (table.items([3])[0].live, table.items([2])[0].live) == (False, True)
    for wrong in (6, -1, 2**80):
        with pytest.raises(ConfigError, match=rf"item {wrong} .* 0 to 5"):
            table.items([0, wrong])


def test_columns_whose_names_are_taken_get_others_and_bytes_are_not_kept(tmp_path):
    cells = {"Source": "a", "source": "b", "more": [1, "é"], "picture": {"bytes": b"x", "path": "p"}, 'odd"; --': 1}
    with writing_items(tmp_path / "items.sqlite") as writer:
        writer.write(
            [
                (fixed(0, path="/a/é.png"), cells),
                (fixed(1, path="/a/\udcff.png"), {"\ud800\0": "\ud800", "bytes": b"x"}),
            ]
        )
    table = ItemTable(tmp_path / "items.sqlite", [range(2)])
    item, other = table.items([0, 1])
    picture = '{"bytes": null, "path": "p"}'
    assert item.columns == {
        "Source_": "a",
        "source__": "b",
        "more": '[1, "é"]',
        "picture": picture,
        'odd"; --': 1,
        "\\ud800 ": None,
    }
    assert other.columns["\\ud800 "] == "\\ud800"
    assert item.path == Path("/a/é.png")
    assert other.path.name == "\\udcff.png"  # a name that is no text: its file is not found again


def test_every_thread_may_ask_and_nobody_may_write(table, tmp_path):
    numbers = []
    threads = [threading.Thread(target=lambda: numbers.append(found(table, "year>=2001"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers == [[0, 1, 5]] * 4
    with pytest.raises(IntegrityError, match="readonly"):
        table._rows("DELETE FROM items")


@pytest.mark.parametrize(
    ("condition", "said"),
    [("year", "expected a condition"), ("=3", "expected a condition"), ("yaer=3", "Did you mean 'year'")],
)
def test_wrong_conditions_are_refused(table, condition, said):
    with pytest.raises(ConfigError, match=said):
        found(table, condition)
    with pytest.raises(ConfigError, match="at most 100"):
        found(table, *["year=2001"] * 101)


def test_a_damaged_table_and_a_full_disk_are_told(tmp_path):
    (tmp_path / "bad.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(IntegrityError, match=r"bad\.sqlite"):
        ItemTable(tmp_path / "bad.sqlite", [range(1)])
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE items (number, id)")
    other.close()
    with pytest.raises(IntegrityError, match="expected the columns number, id, modality"):
        ItemTable(tmp_path / "other.sqlite", [range(1)])
    with pytest.raises(WriteError):
        write(
            tmp_path / "items.sqlite", [(fixed(number), {"a": "b" * 1000}) for number in range(100)], "max_page_count=3"
        )
    with pytest.raises(ConfigError, match="columns"):
        write(tmp_path / "wide.sqlite", [(fixed(0), {str(number): 1 for number in range(30)})], columns=20)

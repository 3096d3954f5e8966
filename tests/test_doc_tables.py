"""Tables in the documents say what their benchmarks measured."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPECIFICATION = importlib.util.spec_from_file_location("doc_tables", ROOT / "benchmarks" / "tables.py")
tables = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(tables)

MEASURED = {
    "command": "python benchmarks/none.py",
    "versions": {"cmcr": "0", "numpy": "2", "torch": "3"},
    "tables": {
        "both": tables.result_table({"what": "{}", "R@1": "{:.1f} ± {:.1f}", "n": "{:,}"}, [["a", [1.25, 0.5], 1000]])
    },
}


@pytest.mark.parametrize("path", tables.DOCUMENTS, ids=lambda path: path.name)
def test_a_table_and_its_source_agree(path):
    document = path.read_text(encoding="utf-8")
    assert tables.made_again(document) == document, "run python benchmarks/tables.py --write"


def test_every_result_stands_in_a_document():
    shown = {found[0] for path in tables.DOCUMENTS for found in tables.MARKED.findall(path.read_text(encoding="utf-8"))}
    assert shown == {path.stem for path in tables.RESULTS.glob("*.json")}


@pytest.fixture
def document(tmp_path):
    (tmp_path / "none.json").write_text(json.dumps(MEASURED), encoding="utf-8")
    return tables.made_again("before\n<!-- table none/both -->\n<!-- end -->\nafter\n", tmp_path)


def test_a_table_is_written_by_its_formats_with_its_command(document, tmp_path):
    lines = document.splitlines()
    assert lines[1:3] == ["<!-- table none/both -->", ""]
    assert lines[3:6] == ["| what | R@1 | n |", "|---|---|---|", "| a | 1.2 ± 0.5 | 1,000 |"]
    assert lines[7] == "`python benchmarks/none.py` (cmcr 0, numpy 2, torch 3)"
    assert lines[-1] == "after"
    assert tables.made_again(document, tmp_path) == document


def test_a_changed_figure_in_either_is_found(document, tmp_path):
    lie = document.replace("1.2 ±", "9.2 ±")
    assert tables.made_again(lie, tmp_path) == document != lie
    (tmp_path / "none.json").write_text(json.dumps({**MEASURED, "seed": 1}), encoding="utf-8")
    assert tables.made_again(document, tmp_path) != document  # not in the table, but in its hash


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("none/both", "other/both", FileNotFoundError),
        ("none/both", "none/other", KeyError),
        ("<!-- end", "<!-- and", ValueError),
        ("none/both -->", "none/both-->", ValueError),
    ],
)
def test_a_marker_without_its_source_is_refused(document, tmp_path, old, new, error):
    with pytest.raises(error):
        tables.made_again(document.replace(old, new), tmp_path)

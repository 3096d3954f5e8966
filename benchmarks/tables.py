"""Tables in the documents, each made of what a benchmark measured and wrote as `benchmarks/results/NAME.json`.

    python benchmarks/tables.py            # does every table say what its file holds?
    python benchmarks/tables.py --write    # make them again

In a document a table stands between `<!-- table NAME/TABLE -->` and `<!-- end HASH -->`, HASH beginning the SHA-256 of the
file's text. What stands between is all made here: the table, and the command and versions that measured it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKED = re.compile(r"<!-- table (\w+)/(\w+) -->\n(.*?)<!-- end(?: (\w*))? -->", re.DOTALL)


def result_table(columns: dict[str, str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Make a table for `save`.

    Args:
        columns: by its name, how a column is written: a format of one value, or of the several in a list.
        rows: a value, or a list of values, for each column.
    """
    return {"columns": columns, "rows": [[_short(value) for value in row] for row in rows]}


def _short(value: Any) -> Any:
    """Round to more digits than a table shows."""
    if isinstance(value, list):
        return [_short(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def save(path: Path, settings: argparse.Namespace, tables: dict[str, Any], **more: Any) -> None:
    """Write what a benchmark measured: its tables by name, the command with all its settings, and the versions."""
    from cmcr._version import versions_here

    given = {name: value for name, value in vars(settings).items() if not isinstance(value, Path)}
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    content = {"command": command, "settings": given, "versions": versions_here(), "tables": tables, **more}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def as_markdown(table: dict[str, Any]) -> str:
    """Write a table of `result_table`."""
    columns: dict[str, str] = table["columns"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in table["rows"]:
        cells = [
            form.format(*value) if isinstance(value, list) else form.format(value)
            for form, value in zip(columns.values(), row, strict=True)
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _made_of(content: dict[str, Any], name: str) -> str:
    versions = ", ".join(f"{library} {content['versions'][library]}" for library in ("cmcr", "numpy", "torch"))
    return f"\n{as_markdown(content['tables'][name])}\n\n`{content['command']}` ({versions})\n\n"


def made_again(document: str, results: Path = RESULTS) -> str:
    """Make every marked table of a document again.

    Raises:
        FileNotFoundError: a marker names a file that is not there.
        KeyError: its file has no such table.
        ValueError: a marker has no end.
    """
    if len(MARKED.findall(document)) != document.count("<!-- table ") or "<!-- table " in MARKED.sub("", document):
        raise ValueError("a table begins with `<!-- table NAME/TABLE -->` and ends with `<!-- end -->`.")

    def made(found: re.Match[str]) -> str:
        text = (results / f"{found[1]}.json").read_text(encoding="utf-8")
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return f"<!-- table {found[1]}/{found[2]} -->\n{_made_of(json.loads(text), found[2])}<!-- end {digest} -->"

    return MARKED.sub(made, document)


def main() -> int:
    """Check the tables, or write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    write, differing = parser.parse_args().write, 0
    for path in DOCUMENTS:
        document = path.read_text(encoding="utf-8")
        made = made_again(document)
        if made != document:
            differing += 1
            print(f"{path.relative_to(ROOT)}: {'tables written' if write else 'differs from benchmarks/results'}")
            if write:
                path.write_text(made, encoding="utf-8")
    return 0 if write else min(differing, 1)


if __name__ == "__main__":
    sys.exit(main())

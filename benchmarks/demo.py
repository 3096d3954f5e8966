"""The demonstration's figures as a table: the one in README.md.

python benchmarks/demo.py --out benchmarks/results/demo.json      # a minute of two cores
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cmcr.demo.measure import DemoOptions
from cmcr.demo.run import run_demo
from tables import as_markdown, result_table, save

LABELS = {
    "cca": "canonical correlations, `cca`",
    "posterior": "posterior over the overlap (no training)",
    "c-mcr": "C-MCR, the paper",
    "paired_oracle": "paired oracle",
}


def table(results: dict[str, Any]) -> dict[str, Any]:
    """Make the table: R@1 of all queries and, in brackets, of unseen numbers."""
    cases = results["connections"].values()
    keys = [task.replace("_to_", " → ") for case in cases for task in case["tasks"]]
    chosen = "; ".join(f"`{case['choice']['chosen'].split(',')[0]}`" for case in cases)
    labels = {**LABELS, "auto": f"**`auto`, the default**: chose {chosen}"}
    rows = []
    for method in next(iter(cases))["methods"]:
        found = [(case["methods"][method], task) for case in cases for task in case["tasks"]]
        figures = [[each[f"{task}/R@1"], each[f"{task}/unseen/R@1"]] for each, task in found]
        rows.append([labels.get(method, method), *figures])
    columns = {"first answer right (unseen numbers only)": "{}", **dict.fromkeys(keys, "{:.1f} ({:.1f})")}
    return {"methods": result_table(columns, rows)}


def main() -> None:
    """Run the demonstration with its defaults and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON of the table")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        results = json.loads(json.dumps(run_demo(Path(folder), DemoOptions(), lambda stage, share: None)))
    tables = table(results)
    if given.out:
        save(given.out, given, tables)
    print(as_markdown(tables["methods"]))


if __name__ == "__main__":
    main()

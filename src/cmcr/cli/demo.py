"""`cmcr demo`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from cmcr.cli.console import print_table, say, shown_stages
from cmcr.cli.options import Json


def demo(
    *,
    out: Path = Path("cmcr-demo"),
    seed: int = 0,
    method: str = "auto",
    ablations: bool = False,
    quick: bool = False,
    serve: bool = False,
    port: int = 8000,
    as_json: Json = False,
) -> None:
    """Connect three miniature spaces that never met, measure it, and write a report to look at and listen to.

    No download, about a minute on two cores. Example: cmcr demo --out my-demo. With --serve, nothing is measured: all three
    are connected, some hundred numbers are indexed, and a page opens in which they can be searched; it takes seconds.

    Args:
        out: Folder for report.html, results.json and the connections.
        seed: Of the items and the training; the same seed gives the same figures.
        method: How to connect: auto or any other of cmcr connect. The paper's c-mcr is always beside it.
        ablations: Measure the paper's ablations too (a minute or two more).
        quick: A trial: few items, in a third of the time; the figures are lower.
        serve: Open the page to search the miniature world with sounds, pictures, words and point clouds.
        port: Of the page; 0 takes a free one.
    """
    if serve:
        _serve(out, port)
        return
    from cmcr.demo.measure import DemoOptions
    from cmcr.demo.run import QUICK, REPORT, run_demo

    options = DemoOptions(seed=seed, method=method, ablations=ablations, **(QUICK if quick else {}))
    with shown_stages(quiet=as_json) as progress:
        results = run_demo(out, options, progress)
    if as_json:
        print(json.dumps(results))
        return
    _print_results(results)
    say("", f"Report: {(out / REPORT).resolve()}", f"Finished in {results['timing']['total']:.0f} s.")
    program = "cmcr" if shutil.which("cmcr") else sys.argv[0]  # make's is not on the path
    folder = "" if out == Path("cmcr-demo") else f" --out {out}"
    say(f"Search the miniature world with sounds, pictures, words and point clouds: {program} demo --serve{folder}")


def _serve(out: Path, port: int) -> None:
    from cmcr.cli.serve import serve
    from cmcr.demo.serving import build_search

    with shown_stages() as progress:
        folder = build_search(out / "search", progress)
    serve(folder, port=port, open_page=sys.stdout.isatty())


def _print_results(results: dict[str, Any]) -> None:
    from cmcr.demo.report import label, task_words

    for case in results["connections"].values():
        for task in case["tasks"]:
            rows = [[label(method, case), *_cells(figures, task)] for method, figures in case["methods"].items()] + [
                [f"C-MCR: {ablation}", *_cells(figures, task)]
                for ablation, figures in case.get("ablations", {}).items()
            ]
            print_table(
                f"{task_words(task)} over {results['test_items']} items, {' + '.join(case['spaces'])} connected through "
                f"{case['overlap']}, percent [95 % interval]",
                ["method", "R@1", "R@5", "R@10", "R@1 unseen"],
                rows,
                marked=label(results["method"], case),
            )
    rows = [
        [space, f"{kept['before']:.1f}", f"{kept['after']:.1f}", f"{100 * kept['kept']:.1f} %"]
        for case in results["connections"].values()
        for space, kept in case["retention"].items()
    ]
    print_table("What connecting cost: each space's own R@1", ["space", "before", "after", "kept"], rows)


def _cells(figures: dict[str, Any], task: str) -> list[str]:
    cells = []
    for k in (1, 5, 10):
        interval = figures.get(f"{task}/R@{k}/interval")  # chance has none
        cells.append(f"{figures[f'{task}/R@{k}']:.1f}" + (" [{:.1f}, {:.1f}]".format(*interval) if interval else ""))
    return [*cells, f"{figures[f'{task}/unseen/R@1']:.1f}"]

"""Our two heavy steps beside the naive way, torch's attention and faiss, and beside the machine's own rate of products.

    python benchmarks/speed.py                          everything, in under a quarter of an hour on two cores
    python benchmarks/speed.py --only consistency       one part of it
    python benchmarks/speed.py --device cuda --out gpu  on a GPU, into another folder
    python benchmarks/speed.py --whole --only connect   a whole connection at full size, for hours on two cores

All is measured in one process, in turn, and the rate of plain products again between the parts. Prints one JSON line a
figure, and writes them to bench.jsonl, as tables to bench.md and as a picture to bench.png. docs/speed.md says how to read
them.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from cmcr.engine.device import choose_device
from side_by_side import consistency, contrast, memory, training, whole
from side_by_side.measuring import Line, Run
from side_by_side.plot import plot
from side_by_side.rooflines import Rooflines, machine
from side_by_side.tables import tables

PARTS: dict[str, Callable[[Run], Iterator[Line]]] = {
    "consistency": consistency.measure,
    "info_nce": contrast.measure,
    "training": training.measure,
    "connect": whole.measure,
    "memory": memory.measure,
}
WORK: dict[str, Callable[..., float]] = {
    "info_nce": contrast.work,
    "training": training.work,
    "memory": memory.work,
}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=["rooflines", *PARTS], default=list(PARTS), metavar="PART")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything works")
    parser.add_argument("--whole", action="store_true", help="connect at full size")
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--peak-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        name, given = arguments.peak_of
        print(WORK[name](**json.loads(given)))
        return
    device = choose_device(arguments.device)
    run = Run(device, 1 if arguments.small else arguments.rounds, arguments.small, arguments.whole)
    arguments.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # what was measured is written then too
    rooflines = Rooflines(run)
    found: list[Line] = []
    try:
        for line in measured([part for part in PARTS if part in arguments.only], run, rooflines):
            found.append(line)
            print(f"{line['part']}: {_in_short(line)}", file=sys.stderr, flush=True)
    finally:
        finish([machine(device), *rooflines.lines(), *found], rooflines, arguments.out)


def measured(parts: list[str], run: Run, rooflines: Rooflines) -> Iterator[Line]:
    """Measure the parts, and the rooflines before, between and after them."""
    rooflines.measure()
    for part in parts:
        yield from PARTS[part](run)
        rooflines.measure()


def finish(lines: list[Line], rooflines: Rooflines, out: Path) -> None:
    """Fill in the shares of the rooflines, now that the best rates are known; print, write and draw all."""
    for line in lines:
        share = rooflines.share(line)
        if share is not None:
            line["share_of_roofline"] = share
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / "bench.jsonl").write_text(text, encoding="utf-8")
    (out / "bench.md").write_text(tables(lines), encoding="utf-8")
    print(text, end="", flush=True)
    try:
        plot(lines, out / "bench.png")
    except ImportError:
        print("no picture: matplotlib is not installed", file=sys.stderr)


def _in_short(line: Line) -> str:
    left_out = ("part", "operations", "width")
    return ", ".join(f"{key} {value}" for key, value in line.items() if key not in left_out)


if __name__ == "__main__":
    main()

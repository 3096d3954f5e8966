"""The figures of a run as the tables of docs/speed.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from side_by_side.measuring import Line

Cell = Callable[[Line], str]


def tables(lines: list[Line]) -> str:
    """Write everything that was measured as Markdown."""
    parts = {part: [line for line in lines if line["part"] == part] for part in ("consistency", "info_nce", "training")}
    sections = [
        ("Machine", _machine(lines)),
        ("Rates of products", _grid([x for x in lines if x["part"] == "rooflines"], "", lambda _: "GFLOP/s", _gflops)),
        (
            "Semantic consistency: times as fast as naive (share of roofline)",
            _grid(parts["consistency"], "queries x rows", lambda x: f"{x['queries']:,} x {x['memory_rows']:,}", _ratio),
        ),
        ("Semantic consistency: errors", _consistency_errors(parts["consistency"])),
        (
            "Contrastive loss and gradient: times as fast as naive (share of roofline)",
            _grid([x for x in parts["info_nce"] if "seconds" in x], "batch", _batch, _ratio),
        ),
        (
            "Contrastive loss and gradient: peak MiB beyond the inputs",
            _grid([x for x in parts["info_nce"] if "peak_mib" in x], "batch", _batch, _peak),
        ),
        (
            "Contrastive loss: relative error of the gradient",
            _grid(
                [x for x in parts["info_nce"] if "data" in x],
                "",
                lambda x: f"{x['data'].replace('_', ' ')}, loss {x['loss']:.2g}",
                lambda x: f"{x['gradient_error']:.1e}",
            ),
        ),
        (
            "Training step: seconds, times as fast as naive (share of roofline)",
            _grid([x for x in parts["training"] if "seconds" in x], "batch", _batch, _step),
        ),
        (
            "Training step: peak MiB beyond the embeddings",
            _grid([x for x in parts["training"] if "peak_mib" in x], "batch", _batch, _peak),
        ),
        (
            "A whole `cmcr.connect`: times as fast as naive (share of roofline)",
            _grid(
                [x for x in lines if x["part"] == "connect"],
                "",
                lambda x: (
                    f"{x['texts']:,} texts, memories of {x['memory_rows']:,}, {x['steps']} steps of {x['batch']:,}"
                ),
                _ratio,
            ),
        ),
        (
            "Peak MiB of 512 queries against the rows on disk",
            _grid([x for x in lines if x["part"] == "memory"], "rows", lambda x: f"{x['memory_rows']:,}", _peak),
        ),
    ]
    return "\n\n".join(f"### {title}\n{body}" for title, body in sections if body) + "\n"


def _machine(lines: list[Line]) -> str:
    about = next(line for line in lines if line["part"] == "machine")
    return ", ".join(f"{key} {value}" for key, value in about.items() if key != "part") + "."


def _grid(lines: list[Line], corner: str, column: Cell, cell: Cell) -> str:
    """Lay lines out: a row a way, a column a size."""
    if not lines:
        return ""
    ways = list(dict.fromkeys(line["way"] for line in lines))
    columns = list(dict.fromkeys(column(line) for line in lines))
    cells = {(line["way"], column(line)): "left out" if "left_out" in line else cell(line) for line in lines}
    return _table([corner, *columns], [[way, *(cells.get((way, each), "") for each in columns)] for way in ways])


def _consistency_errors(lines: list[Line]) -> str:
    """Show the errors at the largest memory."""
    known = [line for line in lines if "random_largest_error" in line]
    largest = max((line["memory_rows"] for line in known), default=0)
    kinds = ("largest_error", "mean_one_minus_cos", "worst_one_minus_cos")
    names = [*kinds, *(f"random_{kind}" for kind in kinds)]
    rows = [[line["way"], *(f"{line[name]:.1e}" for name in names)] for line in known if line["memory_rows"] == largest]
    titles = [f"{data}: {what}" for data in ("clusters", "random") for what in ("largest", "mean 1 - cos", "worst")]
    return _table([f"{largest:,} rows", *titles], rows) if rows else ""


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _batch(line: Line) -> str:
    return f"{line['batch']:,}"


def _gflops(line: Line) -> str:
    return f"{line['gflops']:.0f}"


def _share(line: Line) -> str:
    return f" ({line['share_of_roofline']:.2f})" if "share_of_roofline" in line else ""


def _ratio(line: Line) -> str:
    shown = f"{line['seconds']:.3g} s" if line["way"] == "naive" else f"{line['times_naive']:.2f}"
    return shown + _share(line)


def _step(line: Line) -> str:
    ratio = "" if line["way"] == "naive" else f", {line['times_naive']:.2f}"
    return f"{line['seconds_a_step']:.3g} s{ratio}{_share(line)}"


def _peak(line: Line) -> str:
    return "out of memory" if line["peak_mib"] is None else f"{line['peak_mib']:,.0f}"

"""One picture of a run: four panels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from side_by_side.measuring import Line

_STYLES: dict[str, tuple[str, str, str]] = {
    "naive": ("naive", "#7f7f7f", "o"),
    "naive_onednn": ("naive, oneDNN", "#000000", "v"),
    "sdpa_float32": ("torch's attention, float32", "#d62728", "s"),
    "sdpa_float32_onednn": ("torch's attention, float32, oneDNN", "#ff9896", "s"),
    "sdpa_bfloat16": ("torch's attention, bfloat16", "#9467bd", "D"),
    "faiss_top64": ("faiss, nearest 64 (approximate)", "#bcbd22", "P"),
    "ours_float32": ("ours, float32", "#1f77b4", "^"),
    "ours_bfloat16": ("ours, bfloat16", "#2ca02c", "X"),
}
_ROOFLINES = {
    "float32_default": ("torch.mm, float32", "#7f7f7f"),
    "float32": ("torch.mm, float32, oneDNN", "#1f77b4"),
    "bfloat16": ("torch.mm, bfloat16", "#2ca02c"),
}


def plot(lines: list[Line], path: Path) -> None:
    """Draw what was measured."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(12, 10.5), layout=None)
    FigureCanvasAgg(picture)
    first, second, third, fourth = picture.subplots(2, 2).flatten()
    _rows_panel(first, lines)
    _queries_panel(second, lines)
    _batch_panel(third, lines)
    _memory_panel(fourth, lines)
    handles: dict[str, Any] = {}
    for panel in (first, second, third, fourth):
        panel.grid(visible=True, which="major", alpha=0.3)
        if not panel.lines:
            panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center")
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    picture.legend(handles.values(), handles.keys(), loc="lower center", ncol=4, frameon=False, fontsize=9)
    machine = next((line for line in lines if line["part"] == "machine"), {})
    picture.suptitle(f"{machine.get('gpu', machine.get('cpu', ''))}, {machine.get('threads')} threads", fontsize=10)
    picture.subplots_adjust(left=0.07, right=0.97, top=0.93, bottom=0.15, hspace=0.28, wspace=0.2)
    picture.savefig(path, dpi=110)


def _rows_panel(panel: Any, lines: list[Line]) -> None:
    queries = _most_common(lines, "queries")
    panel.set_title(f"Semantic consistency, {queries:,} queries")
    _draw(panel, lines, "memory_rows", "gflops", lambda x: x["part"] == "consistency" and x["queries"] == queries)
    for line in lines:
        if line["part"] == "rooflines":
            label, colour = _ROOFLINES[line["way"]]
            panel.axhline(line["gflops"], linestyle="--", color=colour, label=label, linewidth=1)
    panel.set(xlabel="rows of the memory", ylabel="GFLOP/s")
    panel.set_ylim(bottom=0)
    _ticks(panel, lines, "memory_rows", "consistency")


def _queries_panel(panel: Any, lines: list[Line]) -> None:
    rows = _most_common(lines, "memory_rows")
    panel.set_title(f"Semantic consistency, {rows:,} rows")
    _draw(panel, lines, "queries", "times_naive", lambda x: x["part"] == "consistency" and x["memory_rows"] == rows)
    panel.set(xlabel="queries", ylabel="times as fast as naive")
    panel.set_ylim(bottom=0)
    _ticks(panel, lines, "queries", "consistency")


def _batch_panel(panel: Any, lines: list[Line]) -> None:
    panel.set_title("Contrastive loss and gradient (lines), training step (dotted)")
    _draw(panel, lines, "batch", "seconds", lambda x: x["part"] == "info_nce")
    _draw(panel, lines, "batch", "seconds_a_step", lambda x: x["part"] == "training", dotted=True)
    panel.set(xlabel="batch", ylabel="seconds", yscale="log")
    _ticks(panel, lines, "batch", "info_nce")


def _memory_panel(panel: Any, lines: list[Line]) -> None:
    panel.set_title("Peak memory of 512 queries, memory on disk")
    _draw(panel, lines, "memory_rows", "peak_mib", lambda x: x["part"] == "memory")
    panel.set(xlabel="rows of the memory", ylabel="MiB above that of 256 rows")
    panel.set_yscale("symlog", linthresh=10)
    panel.set_ylim(bottom=0)
    _ticks(panel, lines, "memory_rows", "memory")


def _draw(
    panel: Any, lines: list[Line], x: str, y: str, chosen: Callable[[Line], bool], *, dotted: bool = False
) -> None:
    for way, (label, colour, marker) in _STYLES.items():
        points = sorted(
            (line[x], line[y]) for line in lines if line.get("way") == way and line.get(y) is not None and chosen(line)
        )
        if points:
            label_once = {} if dotted else {"label": label}
            panel.plot(
                *zip(*points, strict=True), linestyle=":" if dotted else "-", color=colour, marker=marker, **label_once
            )


def _ticks(panel: Any, lines: list[Line], x: str, part: str) -> None:
    """Write the sizes themselves on a logarithmic axis."""
    panel.set_xscale("log", base=2)
    sizes = sorted({line[x] for line in lines if line["part"] == part and x in line})
    panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
    panel.xaxis.minorticks_off()


def _most_common(lines: list[Line], key: str) -> int:
    """Find the size that stays while the other is swept."""
    sizes = [line[key] for line in lines if line["part"] == "consistency"]
    return max(set(sizes), key=sizes.count) if sizes else 0

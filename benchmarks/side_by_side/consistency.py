"""Semantic consistency: ours, the naive way, torch's attention, and the nearest rows by faiss."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend

from cmcr.connection.enhancement import semantic_consistency
from cmcr.engine.precision import fast_float32
from side_by_side.measuring import (
    TEMPERATURE,
    Line,
    Result,
    Run,
    Turns,
    clock,
    clustered_rows,
    figure,
    in_turn,
    random_rows,
    timed_line,
)
from side_by_side.rooflines import BFLOAT16, DEFAULT, FLOAT32

CHUNK = 2048  # queries whose logits the naive way holds at once
COMPARED = 64  # queries whose results are compared with float64
NEAREST = 64
_LONGEST_SEARCH = 20.0  # seconds that faiss may be expected to take


def naive(queries: Tensor, memory: Tensor) -> Tensor:
    """The way it is usually written: all logits of a chunk of queries at once."""
    return torch.cat([torch.softmax(q @ memory.T / TEMPERATURE, -1) @ memory for q in queries.split(CHUNK)])


def naive_onednn(queries: Tensor, memory: Tensor) -> Tensor:
    """The same, with the products through the faster library."""
    with fast_float32():
        return naive(queries, memory)


def attention(queries: Tensor, memory: Tensor, dtype: torch.dtype) -> Tensor:
    """Torch's attention with the memory as keys and values; bfloat16 includes making it so, as ours does."""
    q, m = queries.to(dtype)[None, None], memory.to(dtype)[None, None]
    return F.scaled_dot_product_attention(q, m, m, scale=1 / TEMPERATURE)[0, 0].float()


def attention_onednn(queries: Tensor, memory: Tensor) -> Tensor:
    """The same in float32, with the products through the faster library."""
    with fast_float32():
        return attention(queries, memory, torch.float32)


WAYS: dict[str, tuple[Any, str]] = {
    "naive": (naive, DEFAULT),
    "naive_onednn": (naive_onednn, FLOAT32),
    "sdpa_float32": (partial(attention, dtype=torch.float32), DEFAULT),
    "sdpa_float32_onednn": (attention_onednn, FLOAT32),
    "sdpa_bfloat16": (partial(attention, dtype=torch.bfloat16), BFLOAT16),
    "ours_float32": (partial(semantic_consistency, temperature=TEMPERATURE), FLOAT32),
    "ours_bfloat16": (partial(semantic_consistency, temperature=TEMPERATURE, precision="bfloat16"), BFLOAT16),
}
"""Each way, and the roofline that it stands under."""

ON_CPU_ONLY = {"naive_onednn", "sdpa_float32_onednn"}  # elsewhere there is no other library


def row_sweep(run: Run) -> list[tuple[int, int]]:
    """Queries and rows of the memory, as the memory grows."""
    return [(64, 300), (64, 1000)] if run.small else [(2048, rows) for rows in (4096, 16_384, 65_536, 262_144)]


def query_sweep(run: Run) -> list[tuple[int, int]]:
    """The same as the queries grow, without the size that is in the other sweep."""
    return [(128, 1000)] if run.small else [(queries, 65_536) for queries in (256, 1024, 8192)]


def measure(run: Run) -> Iterator[Line]:
    """Measure all sizes."""
    nearest = _Nearest(run)
    _warm_up(run)
    for queries, rows in [*row_sweep(run), *query_sweep(run)]:
        yield from _one_size(run, queries, rows, nearest)


def _warm_up(run: Run) -> None:
    rows = clustered_rows(2048, run.width, 5, run.device)
    for way, _ in WAYS.values():
        clock(partial(way, rows[:256], rows), run.device)


def _one_size(run: Run, queries: int, rows: int, nearest: _Nearest) -> Iterator[Line]:
    memory = clustered_rows(rows, run.width, 2, run.device)
    asked = clustered_rows(queries, run.width, 3, run.device)
    ways: dict[str, Result] = {
        name: partial(way, asked, memory)
        for name, (way, _) in WAYS.items()
        if run.device.type == "cpu" or name not in ON_CPU_ONLY
    }
    reason = nearest.index(memory, queries)
    if reason is None:
        ways["faiss_top64"] = partial(nearest.means, asked)
    found = in_turn(ways, run)
    exact = exact_means(asked[:COMPARED], memory)
    errors = {name: apart(turns.result[:COMPARED], exact) for name, turns in found.items()}
    nearest.took(found.get("faiss_top64"), queries, rows)
    del memory
    if (queries, rows) in row_sweep(run):  # how many queries there are changes no error
        for name, error in _random_errors(run, rows, list(ways), nearest).items():
            errors[name] |= {f"random_{key}": value for key, value in error.items()}
    operations = 4.0 * queries * rows * run.width
    size = {"part": "consistency", "queries": queries, "memory_rows": rows, "width": run.width}
    for name, turns in found.items():
        roofline = WAYS[name][1] if name in WAYS else FLOAT32
        line = timed_line(turns, found["naive"], {roofline: operations})
        note: Line = {}
        if name not in WAYS:
            del line["operations"]  # it does fewer; its rate is that of an exact way that takes as long
            note["approximate"] = True
        if name.startswith("sdpa"):
            note["kernel"] = _kernel(asked, name)
        yield {**size, "way": name, **line, **errors[name], **note}
    if reason is not None:
        yield {**size, "way": "faiss_top64", "left_out": reason}


def exact_means(queries: Tensor, memory: Tensor) -> Tensor:
    """The means of a few queries in float64, on the CPU: not every device has it."""
    asked, rows = queries.cpu().double(), memory.cpu()
    logits = torch.cat([asked @ part.double().T / TEMPERATURE for part in rows.split(65_536)], dim=1)
    weights = torch.softmax(logits, dim=1).split(65_536, dim=1)
    pairs = zip(weights, rows.split(65_536), strict=True)
    return torch.stack([weight @ part.double() for weight, part in pairs]).sum(dim=0)


def apart(found: Tensor, exact: Tensor) -> Line:
    """Tell how far apart means and exact means are."""
    rows = found.cpu().double()
    turned = 1 - F.cosine_similarity(rows, exact)
    return {
        "largest_error": figure(float((rows - exact).abs().max())),
        "mean_one_minus_cos": figure(float(turned.mean())),
        "worst_one_minus_cos": figure(float(turned.max())),
    }


def _random_errors(run: Run, rows: int, names: list[str], nearest: _Nearest) -> dict[str, Line]:
    """Compare all ways on rows without structure, where few of them have all the weight."""
    memory, asked = random_rows(rows, run.width, 6, run.device), random_rows(COMPARED, run.width, 7, run.device)
    exact = exact_means(asked, memory)
    errors = {name: apart(WAYS[name][0](asked, memory), exact) for name in names if name in WAYS}
    if "faiss_top64" in names:
        nearest.index(memory, COMPARED)
        errors["faiss_top64"] = apart(nearest.means(asked), exact)
    return errors


def _kernel(queries: Tensor, name: str) -> str:
    """Ask torch which of its kernels it takes for this width."""
    dtype = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
    rows = queries[None, None, :64].to(dtype)
    try:
        return str(SDPBackend(torch._fused_sdp_choice(rows, rows, rows, scale=1 / TEMPERATURE)).name)
    except (AttributeError, RuntimeError, ValueError):
        return "unknown"


class _Nearest:
    """The softmax mean of the 64 nearest rows alone, found by faiss on the CPU; the index is made beforehand."""

    def __init__(self, run: Run) -> None:
        self._run, self._pace = run, 0.0
        self._index: Any = None
        self._memory = torch.empty(0)
        self._faiss: Any = None
        try:
            import faiss
        except ImportError:
            return
        self._faiss = faiss

    def index(self, memory: Tensor, queries: int) -> str | None:
        """Make the index, or say why not."""
        self._index = None
        if self._faiss is None:
            return "faiss is not installed (pip install faiss-cpu)"
        if self._run.device.type != "cpu":
            return "faiss-cpu does not compute on this device"
        expected = self._pace * queries * len(memory)
        if expected > _LONGEST_SEARCH:
            return f"expected to take {expected:.0f} s"
        self._memory = memory
        self._index = self._faiss.IndexFlatIP(memory.shape[1])
        self._index.add(memory.numpy())
        return None

    def took(self, turns: Turns | None, queries: int, rows: int) -> None:
        """Remember how long a search takes; forget the index."""
        self._index, self._memory = None, torch.empty(0)
        if turns is not None:
            self._pace = min(turns.seconds) / (queries * rows)

    def means(self, queries: Tensor) -> Tensor:
        """Give the softmax means."""
        found, places = self._index.search(queries.numpy(), NEAREST)
        weights = torch.softmax(torch.from_numpy(found) / TEMPERATURE, dim=1)
        chunks = zip(weights.split(CHUNK), torch.from_numpy(places).split(CHUNK), strict=True)
        return torch.cat([torch.einsum("qk,qkd->qd", weight, self._memory[place]) for weight, place in chunks])

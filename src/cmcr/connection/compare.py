"""Compare what the cheap methods would give, before connecting: `cmcr.compare`, and `cmcr compare`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cmcr.arrays import Array, unit_rows
from cmcr.connection.links import Link, links_of, spaces_of
from cmcr.connection.methods import auto, linear, posterior
from cmcr.connection.methods.auto import AutoSettings, Candidate
from cmcr.connection.methods.evidence import by_pair
from cmcr.connection.methods.fitting import Fitted, Parent, Run
from cmcr.connection.settings import MethodSettings, check_seed
from cmcr.engine.device import choose_device
from cmcr.engine.precision import fast_float32, guarded_torch_state
from cmcr.errors import ConfigError, DimensionError
from cmcr.progress import Progress

CANDIDATES = (
    *auto.CANDIDATES,
    auto.DISTILLED,
    Candidate("ridge", linear.ridge, linear.RidgeSettings()),
    Candidate("procrustes", linear.procrustes, MethodSettings()),
    Candidate("posterior", posterior.fit, posterior.PosteriorSettings()),
)
_ASKED = 1000  # queries whose scores are held at once
_Z = 1.959964  # of 95 %


@dataclass(frozen=True)
class Comparison:
    """What methods would give.

    Attributes:
        rows: a dictionary a method, the best first: "method"; "worth", "classes" and "instances", the unpaired evidences (see
            `cmcr.connection.methods.auto` and `evidence`), in percent but for "worth", which is relative to the closed form;
            "seconds" of one fit; and with pairs, for each direction, such as "clip_to_clap/R@1", the "value", "low" and
            "high" of R@1 in percent with Wilson's interval at 95 %.
        chosen: the method that `cmcr.connect(method="auto")` would choose. "concepts, gap left in" is concepts with
            `remove_gap=False`.
    """

    rows: tuple[Mapping[str, Any], ...]
    chosen: str

    def __str__(self) -> str:
        recalls = [key for key in self.rows[0] if key.endswith("/R@1")]
        directions = [key.removesuffix("/R@1").replace("_", " ") for key in recalls]
        titles = ["", "worth", "classes %", "instances %", "seconds", *(f"R@1 % {each}" for each in directions)]
        lines = [titles]
        for row in self.rows:
            figures = [f"{row['worth']:.2f}", *(f"{row[key]:.1f}" for key in ("classes", "instances", "seconds"))]
            figures += ["{value:.1f} [{low:.1f}, {high:.1f}]".format(**row[key]) for key in recalls]
            lines.append([f"{'*' if row['method'] == self.chosen else ' '} {row['method']}", *figures])
        first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
        table = [
            "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, others, strict=True))])
            for name, *cells in lines
        ]
        return "\n".join([*table, "* is what method='auto' would choose."])


def compare(
    *memories: Any,
    overlap: str | None = None,
    pairs: Mapping[str, Array] | None = None,
    rows: int = 20_000,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> Comparison:
    """Compare what the cheap methods would give, by unpaired evidence and, where there are some, by pairs.

    Args:
        *memories: of two spaces, as `cmcr.connect` takes them.
        overlap: the shared modality; may be left out if there is only one.
        pairs: some pairs to measure by: two arrays of embeddings by the space's name, as ``{"clip": pictures, "clap":
            sounds}``, row i of both the same. Nothing is fitted on them, and they do not change the choice.
        rows: items of the overlap and of each memory to look at, drawn by the seed.
        seed: see `cmcr.connect`.
        device: see `cmcr.connect`.
        progress: called with (stage, share done).

    Returns:
        The comparison; print it for a table.

    Raises:
        ConfigError, DimensionError, TooFewRowsError: as `cmcr.connect`; more than two spaces; pairs of other spaces, or not
            one to one; fewer than a hundred overlap items.
    """
    run = Run(check_seed(seed), choose_device(device), progress)
    settings = AutoSettings(rows=rows)
    spaces = spaces_of(memories, overlap)
    if len(spaces) != 2:
        raise ConfigError(f"two spaces can be compared, got {len(spaces)}: compare two at a time.")
    (link,) = links_of(spaces, overlap)
    sides = None if pairs is None else _sides(pairs, link)
    seconds: dict[str, float] = {}
    candidates = [each._replace(fit=_timed(each, seconds)) for each in CANDIDATES]
    with guarded_torch_state(run.device), fast_float32():
        left, right = (auto.sampled(parent, rows, run.seed) for parent in link.parents)
        found = auto.weighed(left, right, candidates, settings, run)
        measured: dict[str, dict[str, Any]] = {name: {} for name in found}
        for number, candidate in enumerate(candidates if sides else ()):
            fitted = candidate.fit(left, right, candidate.settings, Run(run.seed, run.device))
            measured[candidate.name] = _recalls(fitted, *sides, link.names) if sides else {}
            if progress is not None:
                progress("measuring by pairs", (number + 1) / len(candidates))
    table: list[dict[str, Any]] = [
        {"method": name, **{key: each[key] for key in ("worth", "classes", "instances")}, "seconds": seconds[name]}
        | measured[name]
        for name, each in found.items()
    ]
    return Comparison(tuple(sorted(table, key=lambda row: -row["worth"])), auto.chosen_of(found))


def _timed(candidate: Candidate, seconds: dict[str, float]) -> Callable[[Parent, Parent, Any, Run], Fitted]:
    """Let a candidate note how long its last fit took."""

    def fit(left: Parent, right: Parent, settings: Any, run: Run) -> Fitted:
        start = time.perf_counter()
        found = candidate.fit(left, right, settings, run)
        seconds[candidate.name] = time.perf_counter() - start
        return found

    return fit


def _sides(pairs: Mapping[str, Array], link: Link) -> tuple[Tensor, Tensor]:
    """Check the pairs: `(n, D)` unit rows of the left space and of the right one."""
    if set(pairs) != set(link.names):
        raise ConfigError(f"pairs: expected an array of each of {', '.join(link.names)}, got {', '.join(pairs)}.")
    left, right = (unit_rows(pairs[name], f"pairs of space {name!r}").cpu().float() for name in link.names)
    if len(left) != len(right):
        raise DimensionError(f"pairs: row i of both must belong together, got {len(left)} and {len(right)} rows.")
    for rows, parent in zip((left, right), link.parents, strict=True):
        if rows.shape[1] != parent.width:
            raise DimensionError(f"pairs: expected rows {parent.width} wide, as the space is, got {rows.shape[1]}.")
    return left, right


def _recalls(found: Fitted, left: Tensor, right: Tensor, names: tuple[str, str]) -> dict[str, dict[str, float]]:
    """Measure R@1 of pairs in both directions."""
    with torch.no_grad():
        a, b = found.left.cpu()(left), found.right.cpu()(right)
    directions = {f"{names[0]}_to_{names[1]}/R@1": (a, b), f"{names[1]}_to_{names[0]}/R@1": (b, a)}
    return {name: _recall(queries, corpus) for name, (queries, corpus) in directions.items()}


def _recall(queries: Tensor, corpus: Tensor) -> dict[str, float]:
    """R@1 in percent with Wilson's interval, ``(p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)``."""
    n = len(queries)
    parts = torch.arange(n).split(_ASKED)
    share = sum(by_pair(queries[each] @ corpus.T, torch.arange(len(each)), each) * len(each) for each in parts) / n
    p, square = share / 100, _Z**2 / n
    half = _Z * (p * (1 - p) / n + square / (4 * n)) ** 0.5
    low, high = ((p + square / 2 + sign * half) / (1 + square) for sign in (-1, 1))
    return {"value": share, "low": 100 * max(low, 0.0), "high": 100 * min(high, 1.0)}

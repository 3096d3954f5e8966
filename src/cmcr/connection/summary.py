"""A connection in a line: how well it maps the overlap, what a closed form gives there, what is left of the modality gaps."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch

from cmcr.connection.connection import Connection
from cmcr.connection.diagnosis import common_rows, samples
from cmcr.connection.methods import cca
from cmcr.connection.methods.auto import sampled
from cmcr.connection.methods.evidence import recall
from cmcr.connection.methods.fitting import Parent, Run, drawn, some_rows
from cmcr.engine.precision import guarded_torch_state

_FITTED, _ASKED = 5000, 1000  # overlap items that the closed form is fitted on, and that are asked for


def summarize(connection: Connection, names: tuple[str, str], parents: tuple[Parent, Parent]) -> dict[str, Any]:
    """Measure two spaces of a connection, at samples of their rows: a second at most.

    Args:
        connection: the connection.
        names: of the left and the right space.
        parents: the rows of both.

    Returns:
        as JSON can hold it: "spaces", their names; "by", whose figures these are; "recall" and "recall_cca", R@1 of overlap
        items in percent, the mean of both directions, by that method and by canonical correlations; "items", of how many;
        "held_out", whether both were fitted without these items, as `auto` does, or on them; "gaps", by space the distance
        of the means of its modalities, in the space and in the common one.
    """
    with guarded_torch_state(torch.device("cpu")), torch.no_grad():
        gaps = {}
        for name, *rows in zip(names, *samples(parents, connection.seed), strict=True):
            pairs = rows, [common_rows(connection, name, each) for each in rows]
            gaps[name] = [round(float((texts.mean(dim=0) - items.mean(dim=0)).norm()), 4) for texts, items in pairs]
        recalls = _chosen(connection, names) or _fitted(connection, names, parents)
    return {"spaces": list(names), **recalls, "gaps": gaps}


def in_short(connection: Connection) -> list[str]:
    """Put what `summarize` has found into words, a line for each two spaces; none where nothing was measured."""
    return [_line(each) for each in connection.report.get("in_short", ())]


def _line(found: Mapping[str, Any]) -> str:
    kind = "held-out items" if found["held_out"] else "items that it was fitted on"
    beside = "" if found["recall_cca"] is None else f", cca {found['recall_cca']:.1f} %"
    gaps = ", ".join(
        f"of {name} {before:.2f} before, {after:.2f} after" for name, (before, after) in found["gaps"].items()
    )
    return (
        f"{' + '.join(found['spaces'])}: overlap R@1 of {found['items']:,} {kind}: {found['by']} {found['recall']:.1f} %"
        f"{beside}; modality gap {gaps}."
    )


def _chosen(connection: Connection, names: tuple[str, str]) -> dict[str, Any] | None:
    """Find what `auto` has measured on overlap items that it held out, if it has."""
    report = connection.report if len(connection.spaces) == 2 else connection.report.get(" + ".join(names), {})
    choice = report.get("choice", {})
    if "held_out" not in choice:
        return None
    by, found = choice["by"], choice["candidates"][choice["by"]]
    closed = None if by == "cca" else found["overlap_beside"]
    return {"by": by, "recall": found["overlap"], "recall_cca": closed, "items": choice["held_out"], "held_out": True}


def _fitted(connection: Connection, names: tuple[str, str], parents: tuple[Parent, Parent]) -> dict[str, Any]:
    """Measure overlap items that the connection was fitted on, and fit the closed form on them too."""
    seed = connection.seed
    left, right = both = [sampled(parent, _FITTED, seed) for parent in parents]
    asked = drawn(len(left.overlap), _ASKED, seed)
    rows = [some_rows(parent.overlap, asked) for parent in both]
    ours = [common_rows(connection, name, each) for name, each in zip(names, rows, strict=True)]
    beside = None
    if connection.method != "cca":
        with contextlib.suppress(RuntimeError):  # LinAlgError: rows that are all one vector
            closed = cca.fit(left, right, cca.CorrelationSettings(), Run(seed))
            beside = recall(closed.left(rows[0]), closed.right(rows[1]))
    found = {"by": connection.method, "recall": recall(*ours), "recall_cca": beside}
    return {**found, "items": len(asked), "held_out": False}

"""What hub correction does to retrieval on the miniature world, across a connection and within its spaces.

    python benchmarks/hubs.py --seeds 3 --out benchmarks/results/hubs.json    # the table in docs/search.md, some minutes

Queries and corpus are the test items, reference queries the memories of the training: never a test item. A case's connection
is made by the default method. What is printed is the first answer right, in percent, and by how many points it moves.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cmcr
from cmcr.demo.world import EmbeddedCase, draw_world, embed_world
from cmcr.search.hubs import hub_coordinates
from tables import as_markdown, result_table, save

Rows = NDArray[np.floating]
WAYS = list(product((16, 128), (0.5, 0.75, 1.0)))  # neighbours, share
OURS = (128, 0.75)
WORDS = {"image": "picture", "audio": "sound", "point_cloud": "3D"}


class InRam:
    """Rows in RAM, as `hub_coordinates` reads them from disk."""

    def __init__(self, rows: Rows) -> None:
        self.rows, self.shape = rows, rows.shape

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self, rows: int = 1024) -> Iterator[Any]:
        """Read all rows."""
        yield self.rows


def directions(case: EmbeddedCase, seed: int) -> Iterator[tuple[str, Rows, Rows, Rows]]:
    """Give (name, queries, corpus, reference queries): across the connection, then within each space."""
    connection = cmcr.connect(*case.memories, seed=seed)
    across = {}
    for each, memories in zip(case.outer, case.memories, strict=True):
        asked = np.asarray(memories.rows[each.modality])
        across[each.modality] = tuple(connection.common(rows, each.space) for rows in (each.rows, asked))
    sides = [across]
    for items, memories in zip(case.own, case.memories, strict=True):
        sides.append({each.modality: (each.rows, np.asarray(memories.rows[each.modality])) for each in items})
    where = ["the connection", *case.case.spaces]
    for place, side in zip(where, sides, strict=True):
        for asks, found in permutations(side, 2):
            yield (
                f"{WORDS.get(asks, asks)} → {WORDS.get(found, found)}, {place}",
                side[asks][0],
                side[found][0],
                side[asks][1],
            )


def figure(cosines: Rows) -> float:
    """Share of queries whose own item comes first, in percent."""
    return 100 * float((cosines.argmax(axis=1) == np.arange(len(cosines))).mean())


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON of the table")
    settings = parser.parse_args()
    found: dict[str, list[list[float]]] = defaultdict(list)
    for seed in range(settings.seeds):
        for case in embed_world(draw_world(seed, 6), lambda share: None):
            for name, queries, corpus, references in directions(case, seed):
                cosines = queries @ corpus.T
                means = {n: hub_coordinates(InRam(corpus), references, neighbours=n, share=1.0) for n, _ in WAYS}
                plain = figure(cosines)
                found[name].append([plain, *(figure(cosines - share * means[n]) - plain for n, share in WAYS)])
    ways = {(f"{n}, {share:g}" if (n, share) != OURS else f"**{n}, {share:g}**"): "{:+.1f}" for n, share in WAYS}
    columns = {"query → found": "{}", "plain": "{:.1f}", **ways}
    table = result_table(columns, [[name, *map(fmean, zip(*runs, strict=True))] for name, runs in found.items()])
    print(as_markdown(table))
    if settings.out:
        save(settings.out, settings, {"hubs": table})


if __name__ == "__main__":
    main()

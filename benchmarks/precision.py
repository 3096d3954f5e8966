"""How far off is bfloat16? The rows that it changes most, beside those of float32, against float64.

    python benchmarks/precision.py --out benchmarks/results/precision.json    # the tables in docs/speed.md, two minutes

Semantic consistency of 4,096 queries and 65,536 rows, and the gradient of the contrastive loss of 2,048 pairs; width 512,
temperature 0.01. Rows are random directions, or lie around 200 random ones at the cosine that is named.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from cmcr.connection.enhancement import semantic_consistency
from cmcr.connection.losses import info_nce
from cmcr.engine.precision import Precision
from tables import as_markdown, result_table, save

TEMPERATURE, WIDTH = 0.01, 512
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def unit(rows: int, seed: int) -> Tensor:
    """Draw random directions."""
    return F.normalize(torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed)), dim=1)


def near(rows: Tensor, cosine: float, seed: int) -> Tensor:
    """Draw a row near each: at about that cosine."""
    return F.normalize(rows + (1 / cosine**2 - 1) ** 0.5 * unit(len(rows), seed), dim=1)


def around(count: int, cosine: float | None, seed: int) -> Tensor:
    """Draw rows around 200 directions, at about that cosine to them; None draws random directions."""
    chosen = torch.randint(200, (count,), generator=torch.Generator().manual_seed(seed))
    return unit(count, seed) if cosine is None else near(unit(200, 99)[chosen], cosine, seed)


def means() -> Iterator[list[str | float]]:
    """Give 1 - cos of semantically consistent rows to exact ones: a row of the table for each kind of data."""
    for name, cosine in (("random", None), ("around 200 directions, cosine 0.8", 0.8), ("the same, 0.96", 0.96)):
        queries, memory = around(4096, cosine, 1), around(65_536, cosine, 2)
        wide = memory.double()
        exact = torch.cat([torch.softmax(q.double() @ wide.T / TEMPERATURE, dim=1) @ wide for q in queries.split(512)])
        for precision in PRECISIONS:
            found = semantic_consistency(queries, memory, TEMPERATURE, precision=precision)
            yield _row(name, precision, 1 - F.cosine_similarity(found.double(), exact))


def gradients() -> Iterator[list[str | float]]:
    """Give the relative error of each row's gradient, ``|g - g*| / |g*|``, as `means`."""
    kinds: list[tuple[str, float | None, float | None]] = [
        ("random", None, None),
        ("random, each at 0.7 to its pair", None, 0.7),
        ("around 200 directions, 0.96, and at 0.96 to its pair", 0.96, 0.96),
        ("the same, 0.999 and 0.999: they nearly coincide", 0.999, 0.999),
    ]
    for name, cosine, pair in kinds:
        left = around(2048, cosine, 3)
        right = unit(2048, 4) if pair is None else near(left, pair, 4)
        exact = gradient(left.double(), right.double(), "float32")
        for precision in PRECISIONS:
            off = gradient(left, right, precision).double() - exact
            yield _row(name, precision, off.norm(dim=1) / exact.norm(dim=1))


def gradient(left: Tensor, right: Tensor, precision: Precision) -> Tensor:
    """Compute the gradient of the loss by both sides; exactly, if they are in float64."""
    rows = [each.clone().requires_grad_() for each in (left, right)]
    info_nce(rows[0], rows[1], TEMPERATURE, precision=precision).backward()
    return torch.cat([each.grad for each in rows if each.grad is not None])


def _row(name: str, precision: str, errors: Tensor) -> list[str | float]:
    figures = errors.mean(), torch.quantile(errors, 0.5), torch.quantile(errors, 0.999), errors.max()
    return [name, precision, *(float(f"{figure.item():.3g}") for figure in figures)]


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON of the tables")
    settings = parser.parse_args()
    columns = {"rows": "{}", "precision": "{}"} | dict.fromkeys(("mean", "median", "99.9 %", "worst"), "{:.1e}")
    tables = {"means": result_table(columns, list(means())), "gradients": result_table(columns, list(gradients()))}
    for table in tables.values():
        print(as_markdown(table), end="\n\n")
    if settings.out:
        save(settings.out, settings, tables)


if __name__ == "__main__":
    main()

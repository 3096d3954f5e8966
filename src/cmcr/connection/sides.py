"""What the two spaces bring to the training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cmcr.connection.residence import fits_on
from cmcr.errors import DimensionError, TooFewRowsError


@dataclass(frozen=True)
class Side:
    """What one space brings to the training.

    Attributes:
        overlap: `(n, D)` unit rows of the overlap items.
        consistent: `(n, D)` their counterparts in the space's other modality (see `semantic_consistency`).
    """

    overlap: Tensor
    consistent: Tensor


def placed(left: Side, right: Side, device: torch.device) -> tuple[Side, Side]:
    """Check both sides and bring them to the device as float32; to the CPU if they do not fit there.

    Raises:
        DimensionError: row counts that do not match.
        TooFewRowsError: fewer than two overlap items.
    """
    rows = len(left.overlap)
    if {len(left.consistent), len(right.overlap), len(right.consistent)} != {rows}:
        raise DimensionError("all four sets of embeddings must have one row per overlap item.")
    if rows < 2:
        raise TooFewRowsError(f"expected at least 2 overlap items to contrast with each other, got {rows}.")
    distinct = {id(rows): rows for side in (left, right) for rows in (side.overlap, side.consistent)}
    to_move = sum(4 * rows.numel() for rows in distinct.values() if rows.device != device)
    where = device if fits_on(device, to_move) else torch.device("cpu")
    moved = {key: rows.to(where, torch.float32) for key, rows in distinct.items()}
    first, second = (Side(moved[id(side.overlap)], moved[id(side.consistent)]) for side in (left, right))
    return first, second

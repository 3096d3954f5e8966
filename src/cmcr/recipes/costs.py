"""What each step takes, by arithmetic alone: operations, bytes on disk, RAM.

Letters: D_l and D_r are the widths of the two spaces, K that of the common space, B a batch, W the weights of a projector.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from cmcr.connection.info_nce import is_one_tile
from cmcr.connection.losses import LossTerms
from cmcr.connection.products import Precision
from cmcr.connection.projectors import ProjectorShape
from cmcr.connection.settings import Settings
from cmcr.connection.softmax_mean import tiling_for
from cmcr.memories.layout import DTYPES, item_lines

RESULT_BYTES = 30_000
"""Of the figures of one run."""

BASE_BYTES = 500_000_000
"""Of a process before it holds any embeddings: Python, torch and its buffers."""

SCRATCH_BYTES = 64_000_000
"""Of blocks of logits, which are never held whole: of a semantic consistency or of a contrastive loss."""

IDS_BYTES = 300
"""In RAM, of an item of the overlap: its id in two lists of strings, and what matches them."""

_FLOAT32 = 4
_FIGURE_BYTES = 21  # of a term of the loss in history.json
_MANIFEST_BYTES = 10_000  # of a connection, with its card
_LINE_BYTES = 60  # of an item's id and source, where none can be looked at
_SHARD_OVERHEAD = 1_500  # bytes: of a shard's header, and what the manifest says of it
_LOGIT_PRODUCTS = (
    3  # of a contrastive loss: logits and two gradients; the logits again on the way back where they are many
)


def memory_bytes(items: int, width: int, dtype: str, entries: Sequence[tuple[str, str]], shard_items: int) -> int:
    """Estimate what a memory takes on disk.

    Args:
        items: how many are still to be written.
        width: width D.
        dtype: in which rows are kept.
        entries: ids and sources of a few of them; none where they are not known.
        shard_items: items a shard.
    """
    line = len(item_lines(entries)) / len(entries) if entries else _LINE_BYTES
    shards = -(-items // shard_items)
    return int(items * (width * DTYPES[dtype].itemsize + line)) + shards * _SHARD_OVERHEAD


def rows_bytes(rows: int, width: int, dtype: str) -> int:
    """Count the bytes of a memory's rows."""
    return rows * width * DTYPES[dtype].itemsize


def steps(rows: int | None, settings: Settings) -> int:
    """Count the steps of a training over so many rows of the overlap; 0 where these are not known."""
    if rows is None or rows < 2:
        return 0
    return settings.epochs * (rows // settings.rows_per_step(rows))


def connection_bytes(rows: int | None, left: int, right: int, settings: Settings) -> int:
    """Estimate what a connection takes on disk: weights in float32, the history of the loss in figures, the manifest."""
    history = steps(rows, settings) * len(LossTerms._fields) * _FIGURE_BYTES
    return _FLOAT32 * _weights(left, right, settings) + history + _MANIFEST_BYTES


def kept_bytes(rows: int, width: int) -> int:
    """Count the bytes of a space's semantically consistent rows, which are kept on disk until the connection is written."""
    return _FLOAT32 * rows * width


def state_bytes(rows: int | None, left: int, right: int, settings: Settings) -> int:
    """Estimate the room on disk for the state of a training: weights, AdamW's two moments and the history of the loss.

    Twice, for a moment: the new one is written before the old one is removed.
    """
    history = steps(rows, settings) * len(LossTerms._fields)
    return 2 * _FLOAT32 * (3 * _weights(left, right, settings) + history)


def consistency_operations(queries: int, memory: int, width: int) -> float:
    """Count the operations of a semantic consistency: similarities, then the mean, `2 * 2 * Q * N * D`.

    Tiles are some columns wider than D, which is 3 % more at a width of 512 and not counted.
    """
    return 4.0 * queries * memory * width


def passes(queries: int, width: int, device: torch.device, precision: Precision) -> int:
    """Count how often a semantic consistency reads its memory: once for as many queries as are held at a time."""
    products = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return -(-queries // tiling_for(width, products, torch.float32, device, queries).queries)


def training_operations(
    rows: int, left: int, right: int, settings: Settings, *, recomputed: bool | None = None
) -> float:
    """Count the operations of a training, forwards and backwards.

    An item passes through either projector twice, as the overlap and as its counterpart: `2 * 2 * W` operations forwards,
    and as many for the gradient of the weights and for that of the inputs, which the first layer does not need:
    ``3 * 2 * 2 * W - 2 * 2 * W_1``.

    Of each contrastive loss, a product takes `2 * B * K` an item. Three are needed: logits, and the gradients of both sides.
    Of a batch of more than one tile a fourth computes the logits again on the way back, so that they need not be kept.

    Args:
        rows: of the overlap.
        left: width D_l.
        right: width D_r.
        settings: of the connection.
        recomputed: count the fourth product too; by default where it is done by one process on a CPU.
    """
    batch = settings.rows_per_step(rows)
    items = steps(rows, settings) * batch
    shape = settings.projector_shape(left, right)
    projectors = sum(3 * sum(layers) - layers[0] for layers in (_layers(left, shape), _layers(right, shape)))
    losses = (settings.ttc_weight > 0) + (settings.avc_weight > 0)
    if recomputed is None:
        recomputed = not is_one_tile(batch, torch.device("cpu"))
    products = _LOGIT_PRODUCTS + recomputed
    return float(items) * (2 * 2 * projectors + losses * products * 2 * batch * shape.width)


def coarse_operations(rows: int, left: int, right: int, settings: Settings) -> float:
    """Count which of the operations of a training are in bfloat16: of each contrastive loss, the two of gradients."""
    if settings.precision != "bfloat16":
        return 0.0
    kept, again = (training_operations(rows, left, right, settings, recomputed=flag) for flag in (False, True))
    return 2 * (again - kept)


def embeddings_bytes(rows: int, left: int, right: int, settings: Settings) -> int:
    """Count the bytes of what is trained on: overlap and counterparts in both spaces, `(rows, D)` in float32.

    Without semantic consistency the overlap is its own counterpart.
    """
    return _FLOAT32 * (1 + settings.semantic_consistency) * rows * (left + right)


def batch_bytes(batch: int, left: int, right: int, settings: Settings) -> int:
    """Estimate the bytes of one step of training: rows, activations and gradients of a batch, weights and AdamW's moments.

    Each layer keeps its product, what batch normalisation makes of it and what the ReLU leaves, and one gradient is under
    way; the rows are taken, blurred and scaled. Logits are never held whole.
    """
    shape = settings.projector_shape(left, right)
    outs = sum((*shape.hidden, shape.width))
    numbers = sum(2 * batch * (3 * width + 4 * outs) for width in (left, right))
    return _FLOAT32 * (numbers + 4 * _weights(left, right, settings)) + SCRATCH_BYTES


def _weights(left: int, right: int, settings: Settings) -> int:
    """Count the weights of both projectors."""
    shape = settings.projector_shape(left, right)
    return sum(sum(_layers(width, shape)) for width in (left, right))


def _layers(width: int, shape: ProjectorShape) -> list[int]:
    """Count the weights of each layer of a projector."""
    return [one * other for one, other in pairwise((width, *shape.hidden, shape.width))]

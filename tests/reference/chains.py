"""Numpy twin of what joins more than two spaces, written from its equations: carrying rows, and the layout of blocks."""

import numpy as np

from reference.enhancement import normalize
from reference.methods import linear


def carry(rows, leaf, kept):
    """``N(s f(x) + m)``: f the centred ridge; m and s the mean of `kept`'s overlap and the root mean square around it.

    `leaf` and `kept` are (overlap, outer) rows of the two spaces.
    """
    ridge = linear(kept, leaf, "ridge", 0.1)[1]
    mean = kept[0].mean(axis=0)
    spread = np.sqrt(((kept[0] - mean) ** 2).sum(axis=1).mean())
    return normalize(spread * ridge(rows) + mean)


def common(number, spaces, pairs):
    """Lay out a row: of every pair of spaces its block, zero unless the space `number` is of the pair, then the slack.

    `pairs` holds, in order, either the rows `(n, K)` of the space in that block or, for another pair, the block's width.
    """
    rows = next(len(block) for block in pairs if not isinstance(block, int))
    blocks = [np.zeros((rows, b)) if isinstance(b, int) else np.float64(b) / np.sqrt(spaces - 1) for b in pairs]
    row = np.concatenate(blocks, axis=1)
    left = 1 - (row**2).sum(axis=1)
    if (left > 1e-6).any():
        slack = np.zeros((rows, spaces))
        slack[:, number] = np.sqrt(left.clip(0))
        row = np.concatenate([row, slack], axis=1)
    return row

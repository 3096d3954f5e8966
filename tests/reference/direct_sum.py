"""Numpy twin of the direct sum that keeps the parents, written from its equation."""

import numpy as np


def project(common, rows, number, widths, share, axes=None):
    """One row a loop: ``[sqrt(1 - w) [u | slack of each space] | sqrt(w) own block of each space]``."""
    found = []
    for u, x in zip(np.float64(common), np.float64(rows), strict=True):
        slack = np.zeros(len(widths))
        slack[number] = np.sqrt(max(0.0, 1 - u @ u))
        own = x if axes is None else np.append(x @ axes, np.sqrt(max(0.0, 1 - (x @ axes) @ (x @ axes))))
        blocks = [own if place == number else np.zeros(width) for place, width in enumerate(widths)]
        found.append(
            np.concatenate([np.sqrt(1 - share) * np.append(u, slack), np.sqrt(share) * np.concatenate(blocks)])
        )
    return np.array(found)

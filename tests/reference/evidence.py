"""Numpy twin of the evidence without pairs, in float64, written from what it says it is."""

import numpy as np

from reference.enhancement import normalize
from reference.methods import gap_of


def nearest_held_out(held, overlap, items):
    """cos(x - g, t_m) of every item and held-out item, g the gap between what is fitted on and the items."""
    g = gap_of(overlap, items)
    return normalize(np.float64(items) - g) @ np.float64(held).T


def evidence(similar, labels, scores):
    """(class, instance) evidence in percent of scores between the items of two memories.

    similar: of both memories, items by held-out items; labels: the cluster of each held-out item.
    """
    nearest = [s.argmax(axis=1) for s in similar]
    items = [labels[n] for n in nearest]
    classes = np.mean([by_class(scores, *items), by_class(scores.T, *items[::-1])], axis=0)
    named = sorted(set(nearest[0]) & set(nearest[1]))
    pairs = [(similar[0][:, m].argmax(), similar[1][:, m].argmax()) for m in named]
    hits = [scores[i].argmax() == j for i, j in pairs] + [scores[:, j].argmax() == i for i, j in pairs]
    return np.sqrt(classes[0] * classes[1]), 100 * np.mean(hits)


def by_class(scores, asked, labels):
    """Mean average precision and hit rate in percent: the mean over labels of the mean over their queries."""
    found = {}
    for row, label in zip(scores, asked, strict=True):
        right = labels[np.argsort(-row, kind="stable")] == label
        if right.any():
            ranks = np.flatnonzero(right) + 1
            found.setdefault(label, []).append((np.mean(np.arange(1, len(ranks) + 1) / ranks), right[0]))
    return 100 * np.mean([np.mean(each, axis=0) for each in found.values()], axis=0)

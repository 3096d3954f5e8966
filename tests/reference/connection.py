"""Using a connection (method.md section 2, inference), written from the equations in plain numpy float64."""

import numpy as np

from reference.enhancement import normalize


def similarity(queries, corpus):
    """cos(q_i, c_j) of every pair of rows."""
    return normalize(queries) @ normalize(corpus).T


def recall_at_one(queries, corpus):
    """The share of rows i whose nearest row of the corpus is row i."""
    return float((similarity(queries, corpus).argmax(axis=1) == np.arange(len(queries))).mean())

"""Nearest-neighbour normalisation from its equation, one item and one query at a time."""

import numpy as np


def corrected(query, item, references, neighbours, share):
    """s(q, x) - share * mean of the n largest s(q', x)."""
    nearest = sorted((float(reference @ item) for reference in references), reverse=True)[:neighbours]
    return float(query @ item) - share * float(np.mean(nearest))

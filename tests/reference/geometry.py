"""The shape of a space from the definitions, one pair at a time in plain Python over float64."""

import math

import numpy as np

from reference.enhancement import normalize


def alignment(first, second, power):
    """mean_i |x_i - y_i|^power."""
    gaps = [math.dist(x, y) ** power for x, y in zip(normalize(first), normalize(second), strict=True)]
    return sum(gaps) / len(gaps)


def uniformity(rows, sharpness):
    """log mean over pairs i < j of exp(-t |x_i - x_j|^2)."""
    x = normalize(rows)
    pairs = [(i, j) for i in range(len(x)) for j in range(i)]
    return math.log(sum(math.exp(-sharpness * math.dist(x[i], x[j]) ** 2) for i, j in pairs) / len(pairs))


def k_occurrences(queries, corpus, k):
    """For each corpus row the number of queries to which fewer than k rows are more similar."""
    similarity = np.asarray(queries, np.float64) @ np.asarray(corpus, np.float64).T
    return [sum(1 for row in similarity if sum(other > row[c] for other in row) < k) for c in range(len(corpus))]

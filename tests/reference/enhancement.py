"""Semantic enhancement (method.md section 2), written from the equations in plain numpy float64."""

import numpy as np


def normalize(x):
    """x / ||x||_2 of every row, the "unit row" of method.md section 2."""
    x = np.asarray(x, dtype=np.float64)
    return x / np.sqrt((x * x).sum(axis=-1, keepdims=True))


def semantic_consistency(queries, memory, temperature):
    """v_i = sum_k softmax_k(cos(t_i, v_k) / tau1) v_k (inter-modality), not re-normalised."""
    queries, memory = np.asarray(queries, dtype=np.float64), np.asarray(memory, dtype=np.float64)
    logits = queries @ memory.T / temperature
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights = weights / weights.sum(axis=1, keepdims=True)
    return weights @ memory


def noise_deviation(noise_variance, width, rescale):
    """sigma, or sigma * sqrt(512 / d) where the angle is kept over widths (method.md section 3)."""
    return np.sqrt(noise_variance * 512 / width) if rescale else np.sqrt(noise_variance)


def semantic_completion(x, theta):
    """x~ = normalize(x + theta), theta given (intra-modality)."""
    return normalize(np.asarray(x, dtype=np.float64) + np.asarray(theta, dtype=np.float64))

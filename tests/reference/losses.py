"""The losses of the paper (method.md section 2), written from the equations in plain numpy float64."""

import numpy as np


def log_softmax(logits):
    """log(exp(z_j) / sum_k exp(z_k)) along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def info_nce(a, b, temperature):
    """L = -1/2 mean_i [log softmax_j(a_i . b_j / tau)_i + log softmax_j(b_i . a_j / tau)_i] (L_ttc and L_avc)."""
    logits = np.asarray(a, dtype=np.float64) @ np.asarray(b, dtype=np.float64).T / temperature
    forth = -np.diag(log_softmax(logits)).mean()
    back = -np.diag(log_softmax(logits.T)).mean()
    return (forth + back) / 2


def info_nce_gradients(a, b, temperature):
    """dL/da = (G b), dL/db = (G^T a) with G = (softmax rows + softmax columns - 2 I) / (2 B tau)."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    logits = a @ b.T / temperature
    size = len(a)
    rows, columns = np.exp(log_softmax(logits)), np.exp(log_softmax(logits.T)).T
    inner = (rows + columns - 2 * np.eye(size)) / (2 * size * temperature)
    return inner @ b, inner.T @ a


def intra(overlap_left, consistent_left, overlap_right, consistent_right, distance):
    """L_intra = 1/2 mean_i (||t^I_i - v^I_i|| + ||t^A_i - a^A_i||), norms squared if distance is "squared"."""
    power = {"euclidean": 1, "squared": 2}[distance]
    left = np.linalg.norm(np.asarray(overlap_left, np.float64) - np.asarray(consistent_left, np.float64), axis=1)
    right = np.linalg.norm(np.asarray(overlap_right, np.float64) - np.asarray(consistent_right, np.float64), axis=1)
    return 0.5 * (left**power + right**power).mean()


def total(
    overlap_left,
    consistent_left,
    overlap_right,
    consistent_right,
    *,
    ttc_temperature=0.01,
    avc_temperature=0.01,
    ttc_weight=1.0,
    avc_weight=1.0,
    intra_weight=0.1,
    distance="euclidean",
):
    """L = L_ttc + L_avc + lambda L_intra (weights of L_ttc and L_avc are 1 in the paper); returns L and its terms."""
    ttc = info_nce(overlap_left, overlap_right, ttc_temperature)
    avc = info_nce(consistent_left, consistent_right, avc_temperature)
    attraction = intra(overlap_left, consistent_left, overlap_right, consistent_right, distance)
    return ttc_weight * ttc + avc_weight * avc + intra_weight * attraction, ttc, avc, attraction

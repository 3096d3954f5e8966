"""Training (method.md sections 2 and 3), in plain numpy float64 with gradients by central differences."""

import numpy as np

from reference.losses import info_nce, total
from reference.optimisation import adamw_step, cosine_rate
from reference.projectors import project_both

# The bias of a linear layer cancels in the batch normalisation after it: its gradient is zero, it stays where it starts.
TRAINED = ("weight", "gain", "shift", "straight", "outer")
_SHIFT = 1e-6  # of the central differences


def batch_loss(layers, batch, batch_norm, memory_weight=0.0, **loss):
    """L of one batch of completed rows (t^I, v^I, t^A, a^A); returns L and its terms, and the layers with new statistics.

    With four more sets of rows (v, l, r, a) L has mu / 2 (InfoNCE(f(v), f(r)) + InfoNCE(f(l), f(a))) besides.
    """
    left_overlap, left_consistent, left = project_both(batch[0], batch[1], layers[0], batch_norm)
    right_overlap, right_consistent, right = project_both(batch[2], batch[3], layers[1], batch_norm)
    terms = total(left_overlap, left_consistent, right_overlap, right_consistent, **loss)
    if len(batch) > 4:
        shown_left, meant_left, left = project_both(batch[4], batch[5], left, batch_norm)
        meant_right, shown_right, right = project_both(batch[6], batch[7], right, batch_norm)
        pairs = (shown_left, meant_right), (meant_left, shown_right)
        contrasts = sum(info_nce(*pair, loss["avc_temperature"]) for pair in pairs)
        terms = (terms[0] + memory_weight / 2 * contrasts, *terms[1:])
    return terms, (left, right)


def gradient(layers, batch, batch_norm, parameter, **loss):
    """(L(w + h) - L(w - h)) / 2h for every number of one parameter, which is an array inside `layers`."""
    slope = np.zeros_like(parameter)
    for index in np.ndindex(parameter.shape):
        kept = parameter[index]
        parameter[index] = kept + _SHIFT
        above = batch_loss(layers, batch, batch_norm, **loss)[0][0]
        parameter[index] = kept - _SHIFT
        below = batch_loss(layers, batch, batch_norm, **loss)[0][0]
        parameter[index] = kept
        slope[index] = (above - below) / (2 * _SHIFT)
    return slope


def train(layers, batches, batch_norm, rate, weight_decay, **loss):
    """AdamW under a cosine on L, one step per batch; returns the layers at the end and (L, ttc, avc, intra) of every step."""
    history, moments = [], {}
    for step, batch in enumerate(batches):
        terms, moved = batch_loss(layers, batch, batch_norm, **loss)
        history.append(terms)
        places = [(s, n, p) for s in (0, 1) for n in range(len(layers[s])) for p in TRAINED if p in layers[s][n]]
        slopes = {(s, n, p): gradient(layers, batch, batch_norm, layers[s][n][p], **loss) for s, n, p in places}
        for (s, n, p), slope in slopes.items():
            first, second = moments.get((s, n, p), (0.0, 0.0))
            now = cosine_rate(step, len(batches), rate)
            moved[s][n][p], *moments[s, n, p] = adamw_step(
                layers[s][n][p], slope, first, second, step + 1, now, weight_decay
            )
        layers = moved
    return layers, history

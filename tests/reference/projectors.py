"""The projectors (method.md section 3), written from the equations in plain numpy float64.

A layer is a dict of `weight (out, in)`, `bias`, and for its BatchNorm `gain`, `shift`, `mean`, `variance`, and `relu`; and
of a residual projector, which has one, the matrices `straight (K, in)` and `outer (K, out)` besides.
"""

import numpy as np

from reference.enhancement import normalize

EPSILON = 1e-5  # BatchNorm of torch
MOMENTUM = 0.1  # BatchNorm of torch


def linear(x, layer):
    """y = x W^T + b."""
    return np.asarray(x, dtype=np.float64) @ np.asarray(layer["weight"], np.float64).T + layer["bias"]


def batch_norm(x, layer, mean, variance):
    """y = gain (x - mean) / sqrt(variance + epsilon) + shift."""
    return (x - mean) / np.sqrt(variance + EPSILON) * layer["gain"] + layer["shift"]


def relu(x):
    """y = max(x, 0)."""
    return np.maximum(x, 0.0)


def after(hidden, x, layer):
    """y = W x + V h of a residual projector, or y = h."""
    return x @ layer["straight"].T + hidden @ layer["outer"].T if "straight" in layer else hidden


def project_eval(x, layers):
    """z = f(x) with the stored statistics, not normalised: inference of method.md section 2, before the unit row."""
    for layer in layers:
        hidden = batch_norm(linear(x, layer), layer, layer["mean"], layer["variance"])
        x = after(relu(hidden) if layer["relu"] else hidden, x, layer)
    return x


def project_train(x, layers):
    """z = f(x) with the statistics of the batch (biased variance); returns z and the updated layers."""
    updated = []
    for layer in layers:
        hidden = linear(x, layer)
        mean, variance, count = hidden.mean(axis=0), hidden.var(axis=0), len(x)
        moved = dict(layer)
        moved["mean"] = (1 - MOMENTUM) * layer["mean"] + MOMENTUM * mean
        moved["variance"] = (1 - MOMENTUM) * layer["variance"] + MOMENTUM * variance * count / (count - 1)
        updated.append(moved)
        hidden = batch_norm(hidden, layer, mean, variance)
        x = after(relu(hidden) if layer["relu"] else hidden, x, layer)
    return x, updated


def unit_or_zero(x):
    """x / ||x||_2 of every row; a row that a final ReLU has emptied stays zero."""
    return np.divide(x, np.linalg.norm(x, axis=1, keepdims=True), out=np.zeros_like(x), where=x.any(axis=1)[:, None])


def project_both(overlap, consistent, layers, how):
    """f of both modalities of one space, "together" (one batch of 2B) or "apart" (two batches), then unit rows."""
    if how == "together":
        both, layers = project_train(np.concatenate([overlap, consistent]), layers)
        first, second = both[: len(overlap)], both[len(overlap) :]
    else:
        first, layers = project_train(overlap, layers)
        second, layers = project_train(consistent, layers)
    return unit_or_zero(first), unit_or_zero(second), layers


def project(x, layers):
    """Encoder -> its projector -> unit row (inference of method.md section 2)."""
    return unit_or_zero(project_eval(normalize(x), layers))


def layers_from(state, *, final_relu):
    """The layers "Linear BN ReLU ... Linear BN" from arrays named linears.N.weight, norms.N.running_mean and so on."""
    depth = 1 + max(int(name.split(".")[1]) for name in state)
    names = {"weight": "linears.{}.weight", "bias": "linears.{}.bias", "gain": "norms.{}.weight"}
    names |= {"shift": "norms.{}.bias", "mean": "norms.{}.running_mean", "variance": "norms.{}.running_var"}
    layers = [
        {part: np.asarray(state[name.format(number)], dtype=np.float64) for part, name in names.items()}
        for number in range(depth)
    ]
    for number, layer in enumerate(layers):
        layer["relu"] = number < depth - 1 or final_relu
    return layers


def published_names(state, head):
    """The key names of the published files (method.md section 3), renamed to those of `layers_from`, for one head."""
    renamed = {}
    for name, value in state.items():
        owner, net, part, leaf = name.split(".")
        if owner == head:
            number = {"net": 0, "net1": 0, "net2": 1}[net]
            renamed[f"{'linears' if part == '0' else 'norms'}.{number}.{leaf}"] = value
    return renamed

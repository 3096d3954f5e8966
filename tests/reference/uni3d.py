"""Uni3D's point encoder in numpy over float64, from the published architecture and the names of the published tensors.

Uni3D (Zhou et al., 2023), section 3.1; blocks of EVA-02 (Fang et al., 2023) with a SwiGLU that has a norm inside, heads of 64.
"""

import numpy as np
from scipy.special import erf, expit

from reference.point_groups import groups

HEAD = 64
CORE = 1e-3  # the compiled sampling of the published code passes over points this near to the origin (squared distance)


class Weights:
    """Published tensors by name; remembers which were asked for."""

    def __init__(self, tensors):
        self.tensors = {name: np.asarray(value, dtype=np.float64) for name, value in tensors.items()}
        self.asked = set()

    def __getitem__(self, name):
        self.asked.add(f"point_encoder.{name}")
        return self.tensors[f"point_encoder.{name}"]

    def linear(self, name, x, bias=True):
        weight = self[f"{name}.weight"]
        out = x @ weight.reshape(len(weight), -1).T
        return out + self[f"{name}.bias"] if bias else out

    def layer_norm(self, name, x):
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
        return scaled * self[f"{name}.weight"] + self[f"{name}.bias"]

    def batch_norm(self, name, x):
        scaled = (x - self[f"{name}.running_mean"]) / np.sqrt(self[f"{name}.running_var"] + 1e-5)
        return scaled * self[f"{name}.weight"] + self[f"{name}.bias"]


def softmax(x):
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def group_features(weights, group):
    """One group `(S, 6)` to its features: two small networks over its points, each followed by a maximum."""
    hidden = np.maximum(weights.batch_norm("encoder.first_conv.1", weights.linear("encoder.first_conv.0", group)), 0)
    points = weights.linear("encoder.first_conv.3", hidden)
    both = np.concatenate([np.broadcast_to(points.max(axis=0), points.shape), points], axis=1)
    hidden = np.maximum(weights.batch_norm("encoder.second_conv.1", weights.linear("encoder.second_conv.0", both)), 0)
    return weights.linear("encoder.second_conv.3", hidden).max(axis=0)


def attention(weights, name, x):
    query, value = (weights.linear(f"{name}.{part}", x) for part in ("q_proj", "v_proj"))
    key = weights.linear(f"{name}.k_proj", x, bias=False)
    heads = []
    for start in range(0, x.shape[1], HEAD):
        part = slice(start, start + HEAD)
        heads.append(softmax(query[:, part] @ key[:, part].T / np.sqrt(HEAD)) @ value[:, part])
    return weights.linear(f"{name}.proj", np.concatenate(heads, axis=1))


def swiglu(weights, name, x):
    gate = weights.linear(f"{name}.fc1_g", x)
    inner = gate * expit(gate) * weights.linear(f"{name}.fc1_x", x)
    return weights.linear(f"{name}.fc2", weights.layer_norm(f"{name}.norm", inner))


def embedding(weights, points, *, num_group, group_size, depth):
    """Embed one cloud `(P, 6)` that is centred and of radius 1."""
    neighborhoods, centers = groups(points, num_group, group_size, CORE)
    features = np.stack([group_features(weights, group) for group in neighborhoods])
    hidden = weights.linear("pos_embed.0", centers)
    positions = weights.linear("pos_embed.2", hidden * (1 + erf(hidden / np.sqrt(2))) / 2)
    first = (weights["cls_token"] + weights["cls_pos"])[0]
    tokens = np.concatenate([first, weights.linear("encoder2trans", features) + positions])
    for number in range(depth):
        block = f"visual.blocks.{number}"
        tokens = tokens + attention(weights, f"{block}.attn", weights.layer_norm(f"{block}.norm1", tokens))
        tokens = tokens + swiglu(weights, f"{block}.mlp", weights.layer_norm(f"{block}.norm2", tokens))
    return weights.linear("trans2embed", weights.layer_norm("visual.fc_norm", tokens[0]))

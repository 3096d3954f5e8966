"""Numpy twins of the methods beside C-MCR, in float64, each written from its equations."""

import numpy as np

from reference.enhancement import normalize
from reference.optimisation import adamw_step, cosine_rate


def softmax(logits):
    """exp(z_k) / sum_j exp(z_j) of every row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def covariance(rows, shrinkage=0.0):
    """C = mean (x - m)(x - m)^T, and C + s (tr C / D) I."""
    around = np.float64(rows) - np.float64(rows).mean(axis=0)
    found = around.T @ around / len(rows)
    return found + shrinkage * np.trace(found) / len(found) * np.eye(len(found))


def power(matrix, exponent):
    """C^p = Q diag(l^p) Q^T."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**exponent) @ vectors.T


# ------------------------------------------------------------------------------------------------------- closed forms


def centring(first, second, gap=None):
    """x -> N(x - r m_0 - (1 - r) m_1), r = 1 / (1 + exp(-w . x - b)), by Fisher's discriminant with the pooled covariance.

    With a gap, 0 and the gap are subtracted in place of m_0 and m_1.
    """
    m0, m1 = np.float64(first).mean(axis=0), np.float64(second).mean(axis=0)
    pooled = (covariance(first) + covariance(second)) / 2
    pooled = pooled + 0.1 * np.trace(pooled) / len(pooled) * np.eye(len(pooled))
    w = np.linalg.inv(pooled) @ (m0 - m1)

    def centred(x):
        x = np.float64(x)
        r = (1 / (1 + np.exp(-(x @ w - w @ (m0 + m1) / 2))))[:, None]
        return normalize(x - r * m0 - (1 - r) * m1) if gap is None else normalize(x - (1 - r) * gap)

    return centred


def gap_of(texts, items):
    """g <- mean_x (x - sum_m p(m | x) t_m), p(m | x) = softmax_m(N(x - g) . t_m / 0.02), six times from 0."""
    texts, items = np.float64(texts), np.float64(items)
    gap = np.zeros(texts.shape[1])
    for _ in range(6):
        gap = np.mean([x - posterior(texts, 0.02)(normalize(x - gap)[None])[0] @ texts for x in items], axis=0)
    return gap


def ungapped(texts, items):
    """x -> N(x - (1 - r) g)."""
    return centring(texts, items, gap_of(texts, items))


def linear(left, right, how, strength=None):
    """Both overlaps centred; x_R -> N(x_R W), min |R W - L|^2 + a mean-eigenvalue |W|^2 ("ridge") or W = U V^T."""
    centred = centring(*left), centring(*right)
    goals, rows = centred[0](left[0]), centred[1](right[0])
    if how == "ridge":
        # The same problem as least squares with rows appended.
        root = np.sqrt(strength * np.trace(rows.T @ rows) / rows.shape[1])
        stacked = np.concatenate([rows, root * np.eye(rows.shape[1])])
        w = np.linalg.lstsq(stacked, np.concatenate([goals, np.zeros((rows.shape[1], goals.shape[1]))]), rcond=None)[0]
    else:
        u, _, vt = np.linalg.svd(rows.T @ goals, full_matrices=False)
        w = u @ vt
    return centred[0], lambda x: normalize(centred[1](x) @ w)


def canonical(left, right, strength, power):
    """x -> N(x A U rho^(p/2)) of both, whitened by Cholesky factors, C^-1 = A A^T; known up to the signs of its axes."""
    centred = centring(*left), centring(*right)
    rows = [to(overlap) for to, (overlap, _) in zip(centred, (left, right), strict=True)]
    covariances = [x.T @ x / len(x) for x in rows]
    whitening = [
        np.linalg.inv(np.linalg.cholesky(c + strength * np.trace(c) / len(c) * np.eye(len(c)))).T for c in covariances
    ]
    u, rho, vt = np.linalg.svd(whitening[0].T @ rows[0].T @ rows[1] @ whitening[1] / len(rows[0]), full_matrices=False)
    turns = [a @ axes * (rho / rho[0]) ** (power / 2) for a, axes in zip(whitening, (u, vt.T), strict=True)]
    return [lambda x, to=to, turn=turn: normalize(to(x) @ turn) for to, turn in zip(centred, turns, strict=True)]


# ------------------------------------------------------------------------------------------------- posterior, concepts


def posterior(texts, temperature):
    """p(m | x) = softmax_m(x . t_m / temperature)."""
    return lambda x: softmax(np.float64(x) @ np.float64(texts).T / temperature)


def compact(posteriors, shown, width):
    """z = N(f(x) V), f = N(p), V the leading right singular vectors of the rows f of both memories at equal weight."""
    rows = [normalize(p(memory)) / np.sqrt(len(memory)) for p, memory in zip(posteriors, shown, strict=True)]
    v = np.linalg.svd(np.concatenate(rows))[2][:width].T
    return [lambda x, p=p: normalize(normalize(p(x)) @ v) for p in posteriors]


def k_means(rows, start):
    """Lloyd's algorithm, eight rounds, then the nearest centre of each row; an empty cluster stays where it was."""
    centres = np.float64(rows)[start]

    def nearest():
        return np.array([np.argmin(((centres - row) ** 2).sum(axis=1)) for row in rows])

    for _ in range(8):
        labels = nearest()
        for k in range(len(centres)):
            if (labels == k).any():
                centres[k] = rows[labels == k].mean(axis=0)
    return nearest()


def clusters(left, right, start):
    """The cluster of every overlap item, its two embeddings side by side, each centred."""
    joint = np.concatenate([normalize(np.float64(t) - np.float64(t).mean(axis=0)) for t, _ in (left, right)], axis=1)
    return k_means(joint, start)


def concepts(left, right, start, temperature, kappa, whitening, free=ungapped):
    """Section by section: k-means of both overlaps side by side, half whitening, anchors, one EM step on each memory.

    `free` takes the gap out of the rows of a space.

    Returns, for each space, x -> p(k | x), its refined concepts and the whitening of its items.
    """
    labels = clusters(left, right, start)
    found = []
    for texts, memory in (left, right):
        w, v = power(covariance(memory, 0.1), whitening), power(covariance(texts, 0.1), whitening)
        means = [np.float64(texts)[labels == k].mean(axis=0) for k in range(len(start))]
        anchors = normalize(np.array(means) @ v)
        to = free(texts, memory)
        x = normalize(to(memory) @ w)
        shares = softmax(x @ anchors.T / 0.02)
        refined = normalize(kappa * len(memory) / len(start) * anchors + shares.T @ x)
        of = lambda x, to=to, w=w, c=refined: softmax(normalize(to(x) @ w) @ c.T / temperature)  # noqa: E731
        found.append((of, refined, w))
    return found


def counterparts(left, right, start, temperature):
    """x -> N(sum_k p(k | x) c_k), c_k the mean of the other space's centred overlap rows of concept k, for both spaces."""
    labels = clusters(left, right, start)
    found = concepts(left, right, start, temperature, 1.0, -0.25)
    centred = [centring(*space)(space[0]) for space in (right, left)]
    means = [np.array([rows[labels == k].mean(axis=0) for k in range(len(start))]) for rows in centred]
    return [into(shares, places) for (shares, _, _), places in zip(found, means, strict=True)]


def into(shares, places):
    """x -> N(sum_k p(k | x) c_k)."""
    return lambda x: normalize(shares(x) @ places)


# ------------------------------------------------------------------------------------------------------------ clipclap


def clipclap(matrix, batches, loss, rate, weight_decay=0.01, shift=1e-6):
    """AdamW under a cosine on `loss(N(x M^T), goals)`, its gradient by central differences; returns M and every loss."""
    first = second = 0.0
    history = []
    for step, (rows, goals) in enumerate(batches):

        def of(weights, rows=rows, goals=goals):
            return loss(normalize(rows @ weights.T), goals)

        slope = np.zeros_like(matrix)
        for index in np.ndindex(matrix.shape):
            moved = np.zeros_like(matrix)
            moved[index] = shift
            slope[index] = (of(matrix + moved) - of(matrix - moved)) / (2 * shift)
        history.append(of(matrix))
        now = cosine_rate(step, len(batches), rate)
        matrix, first, second = adamw_step(matrix, slope, first, second, step + 1, now, weight_decay)
    return matrix, history


def cosine_loss(rows, goals):
    """L = mean_i (1 - cos(r_i, l_i))."""
    return (1 - (rows * goals).sum(axis=1)).mean()

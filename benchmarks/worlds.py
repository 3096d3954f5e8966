"""Worlds in which the true pairs are known: two connected spaces of synthetic items, and the miniature world.

They differ in what makes a connection easy. In `gap` an item is its class and a latent of its own, a linear map is right, and
the modalities lie apart; in `numbers` many texts say the same thing and the spaces see it in ways no linear map tells; in
`animals` the texts are mostly of what no item shows, and what belongs together is known by class only. `miniature` gives real
encoders. No figure of real data went into them but the rough size of gaps and scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cmcr
from cmcr.data.numbers import SEEN_NUMBERS, UNSEEN_NUMBERS
from cmcr.demo.world import EmbeddedCase, draw_world, embed_world

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """Two spaces to connect, and what a connection is measured by.

    Attributes:
        name: of the kind of world; equal for all seeds.
        memories: of the left and the right space.
        tests: test rows of the two outer modalities; row i belongs to row i unless there are labels.
        labels: the classes of the test rows; None where they are pairs.
        unseen: which test rows neither memory shows.
    """

    name: str
    memories: tuple[cmcr.Memories, cmcr.Memories]
    tests: tuple[Floats, Floats]
    labels: tuple[Ints, Ints] | None = None
    unseen: Ints | None = None


def figure(world: World, similarity: Floats, rows: Ints | None = None) -> float:
    """Score similarities of left and right test rows, in percent; the mean of both directions.

    It is R@1 of pairs, with `rows` of these pairs among all; of labels the mean average precision, balanced over classes.
    """
    if world.labels is not None:
        first, second = world.labels
        return 50 * (_balanced(similarity, first, second) + _balanced(similarity.T, second, first))
    asked = np.arange(len(similarity)) if rows is None else rows
    return 100 * float(np.mean([(each[asked].argmax(axis=1) == asked).mean() for each in (similarity, similarity.T)]))


def _balanced(similarity: Floats, asked: Ints, labels: Ints) -> float:
    hits = labels[np.argsort(-similarity, axis=1, kind="stable")] == asked[:, None]
    precision = np.cumsum(hits, axis=1) / np.arange(1, len(labels) + 1)
    average = (precision * hits).sum(axis=1) / np.maximum(hits.sum(axis=1), 1)
    return float(np.mean([average[asked == label].mean() for label in np.unique(asked)]))


def miniature(number: int, seed: int) -> World:
    """Embed the miniature world and give one of its two connections."""
    data = embedded(seed)[number]
    (left, right), tests = data.memories, (data.outer[0].rows, data.outer[1].rows)
    return World(data.case.name, (left, right), tests, unseen=UNSEEN_NUMBERS)


@lru_cache(1)
def embedded(seed: int) -> list[EmbeddedCase]:
    """Embed the miniature world for both of its connections."""
    return embed_world(draw_world(seed, 6), lambda share: None)


def gap(apart: float, noise: str, latent: int, seed: int) -> World:
    """Draw spaces 128 and 96 wide of 400 latent classes, whose modalities' means lie about `apart` from each other.

    `noise`, of every row by itself, is "low" or "high"; `latent` is the width of what both spaces show linearly.
    """
    rng = np.random.default_rng([1, seed, int(apart * 100), noise == "high", latent])
    loud, widths = {"low": 0.25, "high": 0.85}[noise], (128, 96)
    classes = rng.standard_normal((400, latent))
    turned = [rng.standard_normal((latent, width)) / np.sqrt(latent) for width in widths]
    length = np.sqrt(apart**2 / 2 / (1 - apart**2 / 2) * (1 + 0.7**2 + loud**2))  # so that unit rows lie `apart`
    offsets = [[_direction(rng, width, length) for _ in range(2)] for width in widths]

    def embedded(items: Floats, space: int, modality: int) -> Floats:
        seen = items @ turned[space] / np.sqrt(widths[space])
        return seen + _noise(rng, len(items), widths[space], loud) + offsets[space][modality]

    text, image, audio, test = (
        classes[rng.integers(400, size=count)] + 0.7 * rng.standard_normal((count, latent))
        for count in (8000, 3000, 3000, 1000)
    )
    parts = (text, 0, 0), (text, 1, 0), (image, 0, 1), (audio, 1, 1), (test, 0, 1), (test, 1, 1)
    return _world(f"gap {apart}, {noise} noise, {latent} wide", *(embedded(*part) for part in parts))


def numbers(seed: int) -> World:
    """Draw the 1000 numbers of three digits: 20,000 texts that name the 800 seen ones in many phrasings, 8 items of each.

    Which digits counts more than their order. Each space sees a number in a way of its own besides (0.55), both towers misread
    a text alike (0.6) and see its phrasing (0.41); texts lean towards some phrasings (0.42); gap 0.37.
    """
    rng = np.random.default_rng([2, seed])
    width, inner, styles = 128, 64, 24
    everything = np.arange(1000)
    digits = np.stack([everything // 100, everything // 10 % 10, everything % 10], axis=1)
    bag, place = (rng.standard_normal(shape) / np.sqrt(3 * inner) for shape in ((10, inner), (3, 10, inner)))
    content = bag[digits].sum(axis=1) + 0.8 * sum(place[k, digits[:, k]] for k in range(3))
    content -= content.mean(axis=0)
    content /= np.sqrt(np.square(content).sum(axis=1).mean())
    turned = [np.linalg.qr(rng.standard_normal((width, inner)))[0].T for _ in range(2)]
    styled = [_noise(rng, styles, width, 1.0) for _ in range(2)]
    phrasings = _noise(rng, 400, styles, 1.0)
    codes = [(content + 0.55 * _noise(rng, 1000, inner, 1.0)) / np.sqrt(1 + 0.55**2) for _ in range(2)]

    def offset(space: int) -> Floats:
        inside, outside = _direction(rng, inner, 1.0) @ turned[space], _direction(rng, width, 1.0)
        outside -= outside @ turned[space].T @ turned[space]
        away = np.sqrt(0.009) * inside + np.sqrt(1 - 0.009) * outside / np.linalg.norm(outside)
        return 0.37 * away + 0.42 * _direction(rng, styles, 1.0) @ styled[space]

    offsets = [[offset(space) for _ in range(2)] for space in range(2)]
    named = rng.choice(SEEN_NUMBERS, 20_000)
    pictured, spoken = (rng.permutation(np.repeat(SEEN_NUMBERS, 8)) for _ in range(2))
    style = phrasings[rng.integers(len(phrasings), size=len(named))]
    misread = _noise(rng, len(named), inner, 0.6)

    def texts(space: int) -> Floats:
        read = codes[space][named] + misread + _noise(rng, len(named), inner, 0.75)
        seen = read @ turned[space] + 0.41 * style @ styled[space]
        return seen + _noise(rng, len(named), width, 0.36) + offsets[space][0]

    def items(which: Ints, space: int) -> Floats:
        read = codes[space][which] + _noise(rng, len(which), inner, 0.39)
        return read @ turned[space] + _noise(rng, len(which), width, 1.4) + offsets[space][1]

    parts = [items(which, space) for which, space in ((pictured, 0), (spoken, 1), (everything, 0), (everything, 1))]
    return _world("numbers-like", texts(0), texts(1), *parts, unseen=UNSEEN_NUMBERS)


def animals(seed: int) -> World:
    """Draw 20,000 captions of 1200 topics, of which the 45 classes of items are 7 %, and items with much else in them."""
    rng = np.random.default_rng([3, seed])
    width, inner, topics, classes = 128, 72, 1200, 45
    groups, group = _noise(rng, 60, inner, 1.0), rng.integers(60, size=topics)
    group[:classes] = rng.integers(5, size=classes)  # the classes are close to each other
    topic = groups[group] + 0.7 * _noise(rng, topics, inner, 1.0)
    topic[:classes] += _direction(rng, inner, 0.8)  # what all share, so that the means of memory and captions differ
    topic /= np.linalg.norm(topic, axis=1, keepdims=True)
    turned = [rng.standard_normal((inner, width)) / np.sqrt(width) for _ in range(2)]
    offsets = [[_direction(rng, width, 0.5) for _ in range(2)] for _ in range(2)]
    relevant = rng.random(20_000) < 0.07
    told = np.where(relevant, rng.integers(classes, size=20_000), rng.integers(classes, topics, 20_000))
    codes = [(topic + 0.3 * _noise(rng, topics, inner, 1.0)) / np.sqrt(1 + 0.3**2) for _ in range(2)]
    detail = _noise(rng, len(told), inner, 0.4)

    def captions(space: int) -> Floats:
        seen = (codes[space][told] + detail) @ turned[space]
        return seen + _noise(rng, len(told), width, 0.15) + offsets[space][0]

    def items(which: Ints, space: int) -> Floats:
        other = codes[space][rng.integers(classes, topics, len(which))]
        read = codes[space][which] + 0.7 * other + _noise(rng, len(which), inner, 0.95)
        return read @ turned[space] + _noise(rng, len(which), width, 0.4) + offsets[space][1]

    common = rng.dirichlet(np.full(classes, 4.0))
    shown = [rng.choice(classes, count, p=common) for count in (3000, 3000, 1500, 1500)]
    parts = [items(which, number % 2) for number, which in enumerate(shown)]
    return _world("animals-like", captions(0), captions(1), *parts, labels=(shown[2], shown[3]))


def _world(name: str, *parts: Floats, **more: Any) -> World:
    """Make unit rows of the overlap, the outer modality and the tests, each of the left space and of the right one."""
    rows = [(part / np.linalg.norm(part, axis=1, keepdims=True)).astype(np.float32) for part in parts]
    left = cmcr.Memories("left", text=rows[0], image=rows[2])
    return World(name, (left, cmcr.Memories("right", text=rows[1], audio=rows[3])), (rows[4], rows[5]), **more)


def _noise(rng: np.random.Generator, count: int, width: int, length: float) -> Floats:
    return length * rng.standard_normal((count, width)) / np.sqrt(width)


def _direction(rng: np.random.Generator, width: int, length: float) -> Floats:
    found = rng.standard_normal(width)
    return length * found / np.linalg.norm(found)
